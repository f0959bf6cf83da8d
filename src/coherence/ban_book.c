/*
 * Ids are random and never used again, so that all proxies agree however their messages cross: what
 * somebody removed is gone, what nobody removed stands. Removals are told before bans.
 *
 * A lesson works on a copy of what stands when it begins. What is added behind that is told by who
 * adds it; what is removed behind it is told by who removes it, and remembered by who heard of it.
 */
#include "coherence/ban_book.h"

#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "base/mem.h"
#include "coherence/bus.h"

/* Bans of one piece: at most 72 KiB of the bus's queue. */
#define PIECE_BANS 64u

/* The last ones, in a ring. */
struct ids {
    uint64_t items[BAN_BOOK_MAX];
    unsigned n, next;
};

struct ban_book {
    pthread_mutex_t lock; /* a leaf */
    struct ids removed;   /* lock */
    struct ids foreign;   /* lock */
    /* Of the lesson; the bus's worker. */
    struct ban_info *bans;
    unsigned n_bans, at;
};

struct ban_book *ban_book_new(void)
{
    struct ban_book *book = mem_alloc(sizeof(*book));

    pthread_mutex_init(&book->lock, NULL);
    return book;
}

void ban_book_free(struct ban_book **book)
{
    struct ban_book *gone = *book;

    *book = NULL;
    if (gone != NULL) {
        mem_free(gone->bans);
        pthread_mutex_destroy(&gone->lock);
        mem_free(gone);
    }
}

/* ---- ids ---- */

static bool has(const struct ids *ids, uint64_t id)
{
    for (unsigned i = 0; i < ids->n; i++) {
        if (ids->items[i] == id) {
            return true;
        }
    }
    return false;
}

static void put(struct ids *ids, uint64_t id)
{
    if (!has(ids, id)) {
        ids->items[ids->next] = id;
        ids->next = (ids->next + 1) % BAN_BOOK_MAX;
        ids->n += ids->n < BAN_BOOK_MAX;
    }
}

void ban_book_note_removed(struct ban_book *book, uint64_t id)
{
    pthread_mutex_lock(&book->lock);
    put(&book->removed, id);
    pthread_mutex_unlock(&book->lock);
}

void ban_book_note_foreign(struct ban_book *book, uint64_t id)
{
    pthread_mutex_lock(&book->lock);
    put(&book->foreign, id);
    pthread_mutex_unlock(&book->lock);
}

bool ban_book_is_removed(struct ban_book *book, uint64_t id)
{
    pthread_mutex_lock(&book->lock);
    const bool is_removed = has(&book->removed, id);
    pthread_mutex_unlock(&book->lock);
    return is_removed;
}

/* ---- lessons ---- */

static void tell_again(struct coherence_fleet *fleet, struct bytes text, int ns)
{
    const struct bus_record record = {
        .kind = BUS_BAN,
        .flags = BUS_IS_AGAIN,
        .db = -1,
        .a = text,
        .b = ns < 0 ? (struct bytes){0} : bytes_of_string(config_namespace_name((unsigned)ns)),
    };

    bus_send(fleet->bus, fleet->members[0], &record);
    stats_add(METRIC_bans_told_again, 1);
}

static void tell_ban(struct coherence_fleet *fleet, const struct ban_info *info, int64_t now_us)
{
    const bool is_timed = info->expires_at_us != CACHE_NO_DEADLINE;
    const int64_t left_ms = is_timed ? (info->expires_at_us - now_us) / 1000 : 0;
    unsigned char text[BAN_TEXT_MAX];

    if (!is_timed || left_ms > 0) {
        tell_again(fleet, bytes_make(text, ban_text_write(text, info->id, left_ms, &info->rule)),
                   info->rule.ns);
    }
}

static void tell_removals(struct coherence_fleet *fleet)
{
    struct ban_book *book = fleet->ban_book;
    unsigned char text[BAN_TEXT_MAX];
    struct ids *removed = mem_alloc(sizeof(*removed));

    pthread_mutex_lock(&book->lock);
    *removed = book->removed;
    pthread_mutex_unlock(&book->lock);
    for (unsigned i = 0; i < removed->n; i++) {
        tell_again(fleet, bytes_make(text, ban_text_write_removal(text, removed->items[i])), -1);
    }
    mem_free(removed);
}

static void begin(struct coherence_fleet *fleet)
{
    struct ban_book *book = fleet->ban_book;
    struct bans_figures figures;

    mem_free(book->bans);
    book->bans = NULL;
    book->n_bans = book->at = 0;
    bans_figures(fleet->cache, &figures);
    if (figures.n_standing > 0) {
        book->bans = mem_try_alloc(figures.n_standing * sizeof(*book->bans));
    }
    if (book->bans != NULL) {
        book->n_bans = bans_list(fleet->cache, book->bans, figures.n_standing);
    }
    tell_removals(fleet);
}

bool ban_book_teach(struct coherence_fleet *fleet, bool is_beginning)
{
    struct ban_book *book = fleet->ban_book;
    const int64_t now_us = clock_now_us();

    if (is_beginning) {
        begin(fleet);
    }
    for (unsigned i = 0; i < PIECE_BANS && book->at < book->n_bans; i++) {
        const struct ban_info *info = &book->bans[book->at++];

        pthread_mutex_lock(&book->lock);
        const bool is_ours = !has(&book->foreign, info->id) && !has(&book->removed, info->id);
        pthread_mutex_unlock(&book->lock);
        if (is_ours) {
            tell_ban(fleet, info, now_us);
        }
    }
    if (book->at < book->n_bans) {
        return true;
    }
    mem_free(book->bans);
    book->bans = NULL;
    book->n_bans = book->at = 0;
    return false;
}
