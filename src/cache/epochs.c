/*
 * A number goes FREE -> LIVE -> CLOSED -> LEAVING -> FREE. It is CLOSED as long as entries may
 * carry it; a pass of the sweep takes all CLOSED ones to LEAVING when it begins, removes what
 * carries them, and frees them when it ends. Between LIVE and CLOSED it may be LAPSED for a while.
 * A number that nothing ever carried is free at once, so that FLUSHALL in a loop takes none away.
 *
 * The same with slots: a pass copies the moved bits when it begins and clears these when it ends. A
 * slot that leaves again meanwhile needs no new bit: while a bit is set nothing is filled under it.
 */
#include "cache/epochs.h"

#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/mem.h"

#define N_NUMBERS 65536u
#define MOVED_WORDS (EPOCHS_SLOTS / 64)
/* Below this many free numbers the sweep hurries. */
#define FREE_LOW (N_NUMBERS / 4)

enum { NUMBER_FREE, NUMBER_LIVE, NUMBER_LAPSED, NUMBER_CLOSED, NUMBER_LEAVING };

/* More are not kept: each stands for a link that was lost since its node last answered. */
#define LAPSED_MAX 1024u

struct lapsed {
    uint16_t number;
    int64_t at_us;
};

/* The moved bits of one incarnation when the pass began. */
struct moved_copy {
    struct moved_copy *next;
    uint16_t incarnation;
    uint64_t words[MOVED_WORDS];
};

struct epochs {
    pthread_mutex_t lock;                    /* a leaf */
    struct epochs_incarnation *incarnations; /* init: the array; its fields are atomic */
    uint32_t last;                           /* lock: the number given out last */
    uint32_t n_free, n_live;                 /* lock */
    bool has_moved_since;                    /* lock: bits were set since the pass began */
    struct moved_copy *copies;               /* lock */
    _Atomic bool wants_sweep;                /* a hint; stored under lock */
    int64_t keep_us;                         /* lock: epochs_keep_lapsed() */
    struct lapsed lapsed[LAPSED_MAX]; /* lock: the n_lapsed numbers that are so, in no order */
    _Atomic uint32_t n_lapsed;        /* stored under lock */
    uint16_t live[N_NUMBERS];         /* lock: the n_live numbers that are live, in no order */
    uint8_t numbers[N_NUMBERS];       /* lock: NUMBER_... */
    _Atomic uint32_t slot_words[EPOCHS_SLOTS]; /* stored under lock; owner in the low 16 bits */
};

struct epochs *epochs_new(void)
{
    struct epochs *epochs = mem_alloc(sizeof(*epochs));
    const size_t size = N_NUMBERS * sizeof(struct epochs_incarnation);

    /* Not from the heap: of these 4 MiB only what is used shall ever be touched. */
    epochs->incarnations = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
                                0);
    if (epochs->incarnations == MAP_FAILED) {
        mem_free(epochs);
        return NULL;
    }
    pthread_mutex_init(&epochs->lock, NULL);
    epochs->n_free = N_NUMBERS - 1;
    return epochs;
}

static void free_moved(struct epochs_incarnation *incarnation)
{
    _Atomic uint64_t *moved = atomic_load_explicit(&incarnation->moved, memory_order_relaxed);

    atomic_store_explicit(&incarnation->moved, NULL, memory_order_relaxed);
    mem_free(moved);
}

static void free_copies(struct epochs *epochs)
{
    while (epochs->copies != NULL) {
        struct moved_copy *copy = epochs->copies;
        epochs->copies = copy->next;
        mem_free(copy);
    }
}

void epochs_free(struct epochs **epochs)
{
    struct epochs *gone = *epochs;

    *epochs = NULL;
    if (gone == NULL) {
        return;
    }
    for (uint32_t i = 1; i < N_NUMBERS; i++) {
        if (gone->numbers[i] != NUMBER_FREE) {
            free_moved(&gone->incarnations[i]);
        }
    }
    free_copies(gone);
    munmap(gone->incarnations, N_NUMBERS * sizeof(struct epochs_incarnation));
    pthread_mutex_destroy(&gone->lock);
    mem_free(gone);
}

/* ---- incarnations ---- */

static void renew_hint_locked(struct epochs *epochs)
{
    const bool is_wanted = epochs->n_free < FREE_LOW || epochs->has_moved_since ||
                           epochs->copies != NULL;

    atomic_store_explicit(&epochs->wants_sweep, is_wanted, memory_order_relaxed);
}

uint16_t epochs_open(struct epochs *epochs, epochs_node node, unsigned worker, int64_t now_us)
{
    return epochs_open_shared(epochs, node, worker, 0, now_us);
}

uint16_t epochs_open_shared(struct epochs *epochs, epochs_node node, unsigned worker,
                            uint8_t shared, int64_t now_us)
{
    uint16_t number = EPOCHS_NONE;

    pthread_mutex_lock(&epochs->lock);
    if (epochs->n_free > 0) {
        do {
            epochs->last = epochs->last + 1 < N_NUMBERS ? epochs->last + 1 : 1;
        } while (epochs->numbers[epochs->last] != NUMBER_FREE);
        number = (uint16_t)epochs->last;
        epochs->numbers[number] = NUMBER_LIVE;
        epochs->live[epochs->n_live++] = number;
        epochs->n_free--;

        struct epochs_incarnation *incarnation = &epochs->incarnations[number];
        atomic_store_explicit(&incarnation->watermark_us, now_us, memory_order_relaxed);
        atomic_store_explicit(&incarnation->node, node, memory_order_relaxed);
        atomic_store_explicit(&incarnation->worker, (uint8_t)worker, memory_order_relaxed);
        atomic_store_explicit(&incarnation->shared, shared, memory_order_relaxed);
        atomic_store_explicit(&incarnation->is_used, false, memory_order_relaxed);
        atomic_store_explicit(&incarnation->is_lapsed, false, memory_order_relaxed);
        /* Release: who sees it live (epochs_is_live, epochs_use) sees the fields above. */
        atomic_store_explicit(&incarnation->is_live, true, memory_order_release);
    }
    renew_hint_locked(epochs);
    pthread_mutex_unlock(&epochs->lock);
    return number;
}

/* The number may live again before the pass ends: its copy is of bits that are gone. */
static void forget_copy_locked(struct epochs *epochs, uint16_t number)
{
    for (struct moved_copy *copy = epochs->copies; copy != NULL; copy = copy->next) {
        if (copy->incarnation == number) {
            copy->incarnation = EPOCHS_NONE;
        }
    }
}

/* The number is on none of the lists. */
static void close_number_locked(struct epochs *epochs, uint16_t number)
{
    struct epochs_incarnation *incarnation = &epochs->incarnations[number];

    forget_copy_locked(epochs, number);
    atomic_store_explicit(&incarnation->is_lapsed, false, memory_order_release);
    /* Sequentially consistent, with the pair in epochs_use(). */
    atomic_store_explicit(&incarnation->is_live, false, memory_order_seq_cst);
    if (atomic_load_explicit(&incarnation->is_used, memory_order_seq_cst)) {
        epochs->numbers[number] = NUMBER_CLOSED;
    } else {
        free_moved(incarnation);
        epochs->numbers[number] = NUMBER_FREE;
        epochs->n_free++;
    }
}

/* Ends the i-th of the live ones. */
static void close_locked(struct epochs *epochs, uint32_t i)
{
    const uint16_t number = epochs->live[i];

    epochs->live[i] = epochs->live[--epochs->n_live];
    close_number_locked(epochs, number);
}

static uint32_t n_lapsed_locked(struct epochs *epochs)
{
    return atomic_load_explicit(&epochs->n_lapsed, memory_order_relaxed);
}

/* Closes the i-th of the lapsed ones; the last one takes its place. */
static void close_lapsed_locked(struct epochs *epochs, uint32_t i)
{
    const uint32_t last = n_lapsed_locked(epochs) - 1;
    const uint16_t number = epochs->lapsed[i].number;

    epochs->lapsed[i] = epochs->lapsed[last];
    atomic_store_explicit(&epochs->n_lapsed, last, memory_order_relaxed);
    close_number_locked(epochs, number);
}

static bool find_live_locked(const struct epochs *epochs, uint16_t incarnation, uint32_t *i)
{
    for (*i = 0; *i < epochs->n_live; (*i)++) {
        if (epochs->live[*i] == incarnation) {
            return true;
        }
    }
    return false;
}

void epochs_close(struct epochs *epochs, uint16_t incarnation)
{
    uint32_t i;

    if (incarnation == EPOCHS_NONE) {
        return;
    }
    pthread_mutex_lock(&epochs->lock);
    if (find_live_locked(epochs, incarnation, &i)) {
        close_locked(epochs, i);
    }
    pthread_mutex_unlock(&epochs->lock);
}

void epochs_close_all(struct epochs *epochs)
{
    pthread_mutex_lock(&epochs->lock);
    while (epochs->n_live > 0) {
        close_locked(epochs, epochs->n_live - 1);
    }
    while (n_lapsed_locked(epochs) > 0) {
        close_lapsed_locked(epochs, n_lapsed_locked(epochs) - 1);
    }
    pthread_mutex_unlock(&epochs->lock);
}

/* ---- lapsed ---- */

static void lapse_locked(struct epochs *epochs, uint32_t i, int64_t now_us)
{
    const uint16_t number = epochs->live[i];
    const uint32_t n = n_lapsed_locked(epochs);
    struct epochs_incarnation *incarnation = &epochs->incarnations[number];

    if (epochs->keep_us == 0 || n == LAPSED_MAX || epochs->n_free < FREE_LOW ||
        !atomic_load_explicit(&incarnation->is_used, memory_order_seq_cst)) {
        close_locked(epochs, i);
        return;
    }
    epochs->live[i] = epochs->live[--epochs->n_live];
    epochs->lapsed[n] = (struct lapsed){number, now_us};
    epochs->numbers[number] = NUMBER_LAPSED;
    atomic_store_explicit(&epochs->n_lapsed, n + 1, memory_order_relaxed);
    atomic_store_explicit(&incarnation->is_lapsed, true, memory_order_release);
    /* As in close_number_locked(). */
    atomic_store_explicit(&incarnation->is_live, false, memory_order_seq_cst);
}

void epochs_lapse(struct epochs *epochs, uint16_t incarnation, int64_t now_us)
{
    uint32_t i;

    if (incarnation == EPOCHS_NONE) {
        return;
    }
    pthread_mutex_lock(&epochs->lock);
    if (find_live_locked(epochs, incarnation, &i)) {
        lapse_locked(epochs, i, now_us);
    }
    pthread_mutex_unlock(&epochs->lock);
}

void epochs_lapse_all(struct epochs *epochs, int64_t now_us)
{
    pthread_mutex_lock(&epochs->lock);
    while (epochs->n_live > 0) {
        lapse_locked(epochs, epochs->n_live - 1, now_us);
    }
    pthread_mutex_unlock(&epochs->lock);
}

void epochs_keep_lapsed(struct epochs *epochs, int64_t keep_us)
{
    pthread_mutex_lock(&epochs->lock);
    epochs->keep_us = keep_us;
    pthread_mutex_unlock(&epochs->lock);
}

void epochs_end_lapsed(struct epochs *epochs, epochs_node node, int64_t sent_at_us)
{
    if (atomic_load_explicit(&epochs->n_lapsed, memory_order_relaxed) == 0) {
        return;
    }
    pthread_mutex_lock(&epochs->lock);
    for (uint32_t i = n_lapsed_locked(epochs); i > 0; i--) {
        const struct lapsed *lapsed = &epochs->lapsed[i - 1];
        const struct epochs_incarnation *at = &epochs->incarnations[lapsed->number];

        if (lapsed->at_us < sent_at_us &&
            atomic_load_explicit(&at->node, memory_order_relaxed) == node) {
            close_lapsed_locked(epochs, i - 1);
        }
    }
    renew_hint_locked(epochs);
    pthread_mutex_unlock(&epochs->lock);
}

/* What has lapsed so long ago that nobody may be shown it. */
static void end_outlived_locked(struct epochs *epochs)
{
    const int64_t since_us = clock_now_us() - epochs->keep_us;

    for (uint32_t i = n_lapsed_locked(epochs); i > 0; i--) {
        const uint16_t number = epochs->lapsed[i - 1].number;

        if (atomic_load_explicit(&epochs->incarnations[number].watermark_us, memory_order_relaxed) <
            since_us) {
            close_lapsed_locked(epochs, i - 1);
        }
    }
}

struct epochs_incarnation *epochs_at(struct epochs *epochs, uint16_t incarnation)
{
    return &epochs->incarnations[incarnation];
}

bool epochs_advance(struct epochs *epochs, uint16_t incarnation, int64_t watermark_us)
{
    struct epochs_incarnation *at = &epochs->incarnations[incarnation];

    if (incarnation == EPOCHS_NONE || !epochs_is_live(at)) {
        return false;
    }
    if (atomic_load_explicit(&at->watermark_us, memory_order_relaxed) < watermark_us) {
        /* Release: a look-up that reads it (acquire) finds all earlier messages applied. */
        atomic_store_explicit(&at->watermark_us, watermark_us, memory_order_release);
    }
    return true;
}

int64_t epochs_oldest_watermark(struct epochs *epochs)
{
    int64_t oldest = INT64_MAX;

    pthread_mutex_lock(&epochs->lock);
    for (uint32_t i = 0; i < epochs->n_live; i++) {
        const int64_t watermark_us = atomic_load_explicit(
            &epochs->incarnations[epochs->live[i]].watermark_us, memory_order_relaxed);
        oldest = watermark_us < oldest ? watermark_us : oldest;
    }
    pthread_mutex_unlock(&epochs->lock);
    return oldest;
}

/* ---- slots ---- */

uint32_t epochs_slot_word(struct epochs *epochs, unsigned slot)
{
    /* Acquire: partner is the store in renew_slot_locked(). */
    return atomic_load_explicit(&epochs->slot_words[slot], memory_order_acquire);
}

epochs_node epochs_slot_owner(uint32_t word)
{
    return (epochs_node)(word & 0xffff);
}

static void mark_moved(struct epochs_incarnation *incarnation, unsigned slot)
{
    _Atomic uint64_t *moved = atomic_load_explicit(&incarnation->moved, memory_order_relaxed);

    if (moved == NULL) {
        moved = mem_alloc(MOVED_WORDS * sizeof(*moved));
        /* Release: look-ups load the pointer with acquire and see the bitmap zeroed. */
        atomic_store_explicit(&incarnation->moved, moved, memory_order_release);
    }
    atomic_fetch_or_explicit(&moved[slot / 64], UINT64_C(1) << slot % 64, memory_order_release);
}

/* The bits come before the word: whoever sees the new word finds the old entries marked. */
static void renew_slot_locked(struct epochs *epochs, unsigned slot, epochs_node node)
{
    const uint32_t word = atomic_load_explicit(&epochs->slot_words[slot], memory_order_relaxed);
    const epochs_node former = epochs_slot_owner(word);

    for (uint32_t i = 0; i < epochs->n_live && former != 0; i++) {
        struct epochs_incarnation *incarnation = &epochs->incarnations[epochs->live[i]];
        if (atomic_load_explicit(&incarnation->node, memory_order_relaxed) == former) {
            mark_moved(incarnation, slot);
            epochs->has_moved_since = true;
        }
    }
    for (uint32_t i = 0; i < n_lapsed_locked(epochs) && former != 0; i++) {
        struct epochs_incarnation *incarnation = &epochs->incarnations[epochs->lapsed[i].number];
        /* The mark stays until it is closed: nothing is filled under it. */
        if (atomic_load_explicit(&incarnation->node, memory_order_relaxed) == former) {
            mark_moved(incarnation, slot);
        }
    }
    atomic_store_explicit(&epochs->slot_words[slot], ((word >> 16) + 1) << 16 | node,
                          memory_order_release);
    renew_hint_locked(epochs);
}

bool epochs_assign(struct epochs *epochs, unsigned slot, epochs_node node)
{
    pthread_mutex_lock(&epochs->lock);
    const uint32_t word = atomic_load_explicit(&epochs->slot_words[slot], memory_order_relaxed);
    const bool has_changed = epochs_slot_owner(word) != node;

    if (has_changed) {
        renew_slot_locked(epochs, slot, node);
    }
    pthread_mutex_unlock(&epochs->lock);
    return has_changed;
}

void epochs_disturb(struct epochs *epochs, unsigned slot)
{
    pthread_mutex_lock(&epochs->lock);
    renew_slot_locked(
        epochs, slot,
        epochs_slot_owner(atomic_load_explicit(&epochs->slot_words[slot], memory_order_relaxed)));
    pthread_mutex_unlock(&epochs->lock);
}

bool epochs_has_moved(const struct epochs_incarnation *incarnation, unsigned slot)
{
    const _Atomic uint64_t *moved = atomic_load_explicit(&incarnation->moved, memory_order_acquire);

    return moved != NULL &&
           (atomic_load_explicit(&moved[slot / 64], memory_order_acquire) >> slot % 64 & 1) != 0;
}

/* ---- recycling ---- */

static void copy_moved_locked(struct epochs *epochs, uint32_t number)
{
    const _Atomic uint64_t *moved = atomic_load_explicit(&epochs->incarnations[number].moved,
                                                         memory_order_relaxed);

    if (moved == NULL) {
        return;
    }
    struct moved_copy *copy = mem_alloc(sizeof(*copy));
    copy->incarnation = (uint16_t)number;
    for (unsigned i = 0; i < MOVED_WORDS; i++) {
        copy->words[i] = atomic_load_explicit(&moved[i], memory_order_relaxed);
    }
    copy->next = epochs->copies;
    epochs->copies = copy;
}

void epochs_sweep_begin(struct epochs *epochs)
{
    pthread_mutex_lock(&epochs->lock);
    free_copies(epochs);
    end_outlived_locked(epochs);
    for (uint32_t i = 1; i < N_NUMBERS; i++) {
        if (epochs->numbers[i] == NUMBER_CLOSED) {
            epochs->numbers[i] = NUMBER_LEAVING;
        } else if (epochs->numbers[i] == NUMBER_LIVE && epochs->has_moved_since) {
            copy_moved_locked(epochs, i);
        }
    }
    epochs->has_moved_since = false;
    renew_hint_locked(epochs);
    pthread_mutex_unlock(&epochs->lock);
}

/* Bits that were set before the pass: nothing is left that they mark. */
static void clear_copied(struct epochs *epochs, const struct moved_copy *copy)
{
    _Atomic uint64_t *moved = atomic_load_explicit(&epochs->incarnations[copy->incarnation].moved,
                                                   memory_order_relaxed);

    for (unsigned i = 0; moved != NULL && i < MOVED_WORDS; i++) {
        atomic_fetch_and_explicit(&moved[i], ~copy->words[i], memory_order_relaxed);
    }
}

void epochs_sweep_end(struct epochs *epochs)
{
    pthread_mutex_lock(&epochs->lock);
    for (const struct moved_copy *copy = epochs->copies; copy != NULL; copy = copy->next) {
        if (epochs->numbers[copy->incarnation] == NUMBER_LIVE) {
            clear_copied(epochs, copy);
        }
    }
    free_copies(epochs);
    for (uint32_t i = 1; i < N_NUMBERS; i++) {
        if (epochs->numbers[i] == NUMBER_LEAVING) {
            free_moved(&epochs->incarnations[i]);
            epochs->numbers[i] = NUMBER_FREE;
            epochs->n_free++;
        }
    }
    renew_hint_locked(epochs);
    pthread_mutex_unlock(&epochs->lock);
}

bool epochs_wants_sweep(struct epochs *epochs)
{
    return atomic_load_explicit(&epochs->wants_sweep, memory_order_relaxed);
}
