/*
 * probe.h - a self-test of a tracking link: is a change of a key that it has read really told?
 *
 * Purpose:    with coherence-probe, CLIENT TRACKING counts as offered only when a key that the link
 *             has asked for, and another one has set, was named on it within a second. Between the
 *             two may stand proxies that accept the command and drop the messages.
 * Ownership:  part of its track.
 * Threading:  the track's worker.
 *
 * Where the key cannot be written (a replica, a user without the right), acceptance must do.
 */
#ifndef NC_COHERENCE_PROBE_H
#define NC_COHERENCE_PROBE_H

#include "upstream/backend.h"

struct track;

enum probe_state { PROBE_IDLE, PROBE_WANTED, PROBE_READING, PROBE_WRITING, PROBE_WRITTEN };

struct probe {
    enum probe_state state;
    bool is_reading, is_writing; /* these are under way, perhaps of a former test */
    bool has_failed;             /* on the connection as it is */
    bool was_logged;
    struct link_op read, write;
    int64_t until_us;
    unsigned key_len;
    char key[160];
};

void probe_init(struct track *track);
/* The node has accepted CLIENT TRACKING. False: that must do, nothing is tested. */
bool probe_begin(struct track *track);
/* The link was lost: nothing is known any more. */
void probe_end(struct track *track);
/* A push has come on the link. */
void probe_take_message(struct track *track, struct bytes frame);
/* The node was told to forget which keys the link has read. */
void probe_restart(struct track *track);
void probe_tick(struct track *track, int64_t now_us);

/* track.c: how it ended. */
void track_on_probed(struct track *track, bool is_told);

#endif
