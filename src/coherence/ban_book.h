/*
 * ban_book.h - what a proxy remembers of standing bans, to tell it to those who missed it
 *
 * Purpose:    bans.h holds what stands. Here is which ids were removed, so that a proxy that did
 *             not hear of it cannot bring them back: a removal wins, whatever order messages have.
 *             And the lesson: both told once more, a piece at a time, to proxies that are new on
 *             the bus or have missed something, and to the others by who was away itself.
 * Ownership:  one per process, fleet->ban_book.
 * Threading:  removed and foreign ids: any thread. Lessons: the bus's worker.
 * Errors:     none. It remembers the last BAN_BOOK_MAX removals.
 */
#ifndef NC_COHERENCE_BAN_BOOK_H
#define NC_COHERENCE_BAN_BOOK_H

#include "coherence/ban_text.h"
#include "coherence/coherence.h"

/* Removals that are remembered, each of an id that is never used again. */
#define BAN_BOOK_MAX 1024u

struct ban_book; /* opaque */

struct ban_book *ban_book_new(void);
void ban_book_free(struct ban_book **book);

/* Before the ban itself is taken away: who adds it meanwhile looks here afterwards. */
void ban_book_note_removed(struct ban_book *book, uint64_t id);
bool ban_book_is_removed(struct ban_book *book, uint64_t id);
/* Its namespace is not known here, where it holds for all: not to be told to others like that. */
void ban_book_note_foreign(struct ban_book *book, uint64_t id);

/* Sends a piece of what there is to tell, from the beginning or from where it was left. False: that
 * was all. */
bool ban_book_teach(struct coherence_fleet *fleet, bool is_beginning);

#endif
