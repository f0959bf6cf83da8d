#include "cache/entry.h"

#include "cache/hash.h"

/* A deadline beyond this is brought nearer: comparison modulo 2^32 sees half of it (about a year).
 */
#define TICKS_AHEAD_MAX ((int64_t)1 << 30)
#define BLOCK_DETACHED ((uint16_t)16)
#define BLOCK_PINS ((uint16_t)15)
#define BLOCK_COMMAND_SHIFT 5

/* ---- time ---- */

bool entry_deadline(int64_t deadline_us, int64_t now_us, uint32_t *deadline)
{
    if (deadline_us == CACHE_NO_DEADLINE) {
        *deadline = 0;
        return true;
    }
    const int64_t now_tick = now_us / ENTRY_TICK_US;
    int64_t tick = deadline_us / ENTRY_TICK_US;

    if (tick > now_tick + TICKS_AHEAD_MAX) {
        tick = now_tick + TICKS_AHEAD_MAX;
    }
    if ((uint32_t)tick == 0) {
        tick--; /* 0 means "none"; one tick earlier is a deadline too */
    }
    if (tick <= now_tick) {
        return false;
    }
    *deadline = (uint32_t)tick;
    return true;
}

int64_t entry_deadline_us(uint32_t deadline, int64_t now_us)
{
    if (deadline == 0) {
        return CACHE_NO_DEADLINE;
    }
    const int64_t now_tick = now_us / ENTRY_TICK_US;

    return (now_tick + (int32_t)(deadline - (uint32_t)now_tick)) * ENTRY_TICK_US;
}

static uint32_t later_deadline(uint32_t a, uint32_t b)
{
    if (a == 0 || b == 0) {
        return 0;
    }
    return (int32_t)(a - b) > 0 ? a : b;
}

/* ---- fields ---- */

uint32_t entry_db(const struct entry *entry)
{
    uint32_t db = 0;

    if ((entry->flags & ENTRY_SCOPED) != 0) {
        memcpy(&db, entry->key + entry->key_len, sizeof(db));
    }
    return db;
}

/* A key's databases share its shard (bits 8-13 of key_hash); only the place in the table differs.
 */
uint64_t entry_scoped_hash(uint64_t key_hash, uint32_t db)
{
    if (db == 0) {
        return key_hash;
    }
    uint64_t mixed = key_hash ^ (db * UINT64_C(0x9e3779b97f4a7c15));

    mixed = (mixed ^ (mixed >> 32)) * UINT64_C(0xd6e8feb86659fd93);
    return mixed ^ (mixed >> 32);
}

uint64_t entry_hash(const struct entry *entry)
{
    return entry_scoped_hash(hash_key(entry_key(entry)), entry_db(entry));
}

/* ---- sizes ---- */

static size_t scope_bytes(const struct entry *entry)
{
    return (entry->flags & ENTRY_SCOPED) != 0 ? sizeof(uint32_t) : 0;
}

size_t entry_own_size(const struct entry *entry)
{
    const size_t reply = (entry->flags & (ENTRY_FIRST | ENTRY_MORE)) == ENTRY_FIRST
                             ? entry_body_length(entry->body)
                             : 0;
    return ENTRY_HEAD + entry->key_len + scope_bytes(entry) + reply;
}

static struct bytes block_args(const struct entry_block *block)
{
    return bytes_make(block + 1, block->args_len);
}

static struct bytes block_reply(const struct entry_block *block)
{
    return bytes_make((const unsigned char *)(block + 1) + block->args_len,
                      entry_body_length(block->body));
}

static size_t block_size(const struct entry_block *block)
{
    return sizeof(*block) + block->args_len + entry_body_length(block->body);
}

size_t entry_object_cost(const void *object, bool is_block)
{
    return arena_cost(is_block ? block_size(object) : entry_own_size(object));
}

/* What the protocol puts around the value of a bulk string: "$100\r\n" and "\r\n". */
static size_t framing_bytes(struct bytes reply)
{
    if (reply.len == 0 || reply.ptr[0] != '$') {
        return 0;
    }
    const size_t n = reply.len < 16 ? reply.len : 16;
    const unsigned char *end = memchr(reply.ptr, '\n', n);

    return end == NULL ? 0 : (size_t)(end - reply.ptr) + 1 + 2;
}

static uint32_t body_of(size_t length, const struct cache_fill *fill)
{
    const uint32_t marks = (fill->is_renewable ? ENTRY_RENEWABLE : 0) |
                           (fill->grace_us > 0 ? ENTRY_GRACE : 0);

    return (uint32_t)length | (uint32_t)fill->encoding << 28 | marks << 30;
}

/* ---- walking the list of views ---- */

static struct entry *holder_of(const struct entry *entry)
{
    const uint8_t both = ENTRY_MORE | ENTRY_FIRST;

    return (entry->flags & both) == both ? entry_at(entry->body) : NULL;
}

/* Where the reference to the first block stands. entry has ENTRY_MORE. */
static arena_ref *first_block(struct entry *entry)
{
    struct entry *holder = holder_of(entry);

    return holder != NULL ? &holder->next : &entry->body;
}

static arena_ref first_block_ref(const struct entry *entry)
{
    const struct entry *holder = holder_of(entry);

    return holder != NULL ? holder->next : entry->body;
}

static uint16_t block_command(const struct entry_block *block)
{
    return (uint16_t)(block->word >> BLOCK_COMMAND_SHIFT);
}

unsigned entry_view_marks(const struct entry_view *view)
{
    const void *object = arena_at(view->object);

    return (view->is_block ? ((const struct entry_block *)object)->body
                           : ((const struct entry *)object)->body) >>
           30;
}

static struct entry_view view_of_block(const struct entry_block *block)
{
    return (struct entry_view){.object = arena_ref_of(block),
                               .is_block = true,
                               .command = block_command(block),
                               .encoding = entry_body_encoding(block->body),
                               .deadline = block->deadline,
                               .args = block_args(block),
                               .reply = block_reply(block)};
}

/* holds is the entry itself or its holder. */
static struct entry_view view_of_get(const struct entry *holds)
{
    return (struct entry_view){.object = arena_ref_of(holds),
                               .encoding = entry_body_encoding(holds->body),
                               .deadline = holds->deadline,
                               .reply = entry_own_reply(holds)};
}

bool entry_find_view(const struct entry *entry, uint16_t command, struct bytes args,
                     struct entry_view *view)
{
    if (command == 0 && args.len == 0) {
        const struct entry *holder = holder_of(entry);

        if ((entry->flags & ENTRY_FIRST) == 0) {
            return false;
        }
        *view = view_of_get(holder != NULL ? holder : entry);
        return true;
    }
    if ((entry->flags & ENTRY_MORE) == 0) {
        return false;
    }
    for (arena_ref at = first_block_ref(entry); at != ARENA_NONE;) {
        const struct entry_block *block = arena_at(at);

        if (block_command(block) == command && bytes_equal(block_args(block), args)) {
            *view = view_of_block(block);
            return true;
        }
        at = block->next;
    }
    return false;
}

unsigned entry_views(const struct entry *entry, struct entry_view *views, unsigned max)
{
    unsigned n = 0;

    if ((entry->flags & ENTRY_FIRST) != 0 && n < max) {
        const struct entry *holder = holder_of(entry);
        views[n++] = view_of_get(holder != NULL ? holder : entry);
    }
    if ((entry->flags & ENTRY_MORE) != 0) {
        for (arena_ref at = first_block_ref(entry); at != ARENA_NONE && n < max;) {
            const struct entry_block *block = arena_at(at);
            views[n++] = view_of_block(block);
            at = block->next;
        }
    }
    return n;
}

struct entry_sizes entry_measure(const struct entry *entry)
{
    const size_t head = ENTRY_HEAD + scope_bytes(entry);
    struct entry_sizes sizes = {.cost = arena_cost(entry_own_size(entry)), .metadata = head};
    const struct entry *holder = holder_of(entry);

    if ((entry->flags & ENTRY_FIRST) != 0) {
        sizes.n_views++;
        sizes.metadata += framing_bytes(entry_own_reply(holder != NULL ? holder : entry));
    }
    if ((entry->flags & ENTRY_MORE) == 0) {
        return sizes;
    }
    if (holder != NULL) {
        sizes.cost += arena_cost(entry_own_size(holder));
        sizes.metadata += head + entry->key_len; /* the key stands there a second time */
    }
    for (arena_ref at = first_block_ref(entry); at != ARENA_NONE;) {
        const struct entry_block *block = arena_at(at);

        sizes.n_views++;
        sizes.cost += arena_cost(block_size(block));
        sizes.metadata += sizeof(*block) + block->args_len + framing_bytes(block_reply(block));
        at = block->next;
    }
    return sizes;
}

static void cap(uint32_t *deadline, uint32_t limit)
{
    if (*deadline == 0 || (int32_t)(*deadline - limit) > 0) {
        *deadline = limit;
    }
}

void entry_cap_deadline(struct entry *entry, uint32_t deadline)
{
    struct entry *holder = holder_of(entry);

    cap(&entry->deadline, deadline);
    if ((entry->flags & ENTRY_MORE) == 0) {
        return;
    }
    if (holder != NULL) {
        cap(&holder->deadline, deadline);
    }
    for (arena_ref at = first_block_ref(entry); at != ARENA_NONE;) {
        struct entry_block *block = arena_at(at);

        cap(&block->deadline, deadline);
        at = block->next;
    }
}

/* ---- building ---- */

static struct entry *new_entry(struct bytes key, uint32_t db, uint16_t incarnation, uint8_t ns,
                               bool is_negative, size_t reply_len)
{
    const size_t scope = db != 0 ? sizeof(db) : 0;
    struct entry *entry = arena_alloc(ENTRY_HEAD + key.len + scope + reply_len);

    if (entry == NULL) {
        return NULL;
    }
    /* Not by assignment: the structure may end behind what was allocated. */
    memset(entry, 0, ENTRY_HEAD);
    entry->incarnation = incarnation;
    entry->key_len = (uint16_t)key.len;
    entry->ns = ns;
    entry->queue = is_negative ? 0x80 : 0;
    entry->flags = db != 0 ? ENTRY_SCOPED : 0;
    unsigned char *end = entry->key;
    memcpy(end, key.ptr, key.len);
    if (db != 0) {
        memcpy(end + key.len, &db, sizeof(db));
    }
    return entry;
}

struct entry *entry_new(struct bytes key, uint32_t db, uint16_t incarnation, uint8_t ns,
                        bool is_negative)
{
    struct entry *entry = new_entry(key, db, incarnation, ns, is_negative, 0);

    if (entry != NULL) {
        entry->flags |= ENTRY_MORE;
    }
    return entry;
}

struct entry *entry_new_get(struct bytes key, uint32_t db, uint16_t incarnation,
                            const struct cache_fill *fill, uint32_t deadline)
{
    const struct bytes reply = fill->is_negative ? (struct bytes){NULL, 0} : fill->reply;
    struct entry *entry = new_entry(key, db, incarnation, fill->ns, fill->is_negative, reply.len);

    if (entry != NULL) {
        entry->flags |= ENTRY_FIRST;
        entry->deadline = deadline;
        entry->body = body_of(reply.len, fill);
        if (reply.len > 0) {
            const size_t scope = db != 0 ? sizeof(db) : 0;
            memcpy(entry->key + key.len + scope, reply.ptr, reply.len);
        }
    }
    return entry;
}

struct entry_block *entry_block_new(uint16_t command, struct bytes args,
                                    const struct cache_fill *fill, uint32_t deadline)
{
    struct entry_block *block = arena_alloc(sizeof(*block) + args.len + fill->reply.len);

    if (block == NULL) {
        return NULL;
    }
    *block = (struct entry_block){.deadline = deadline,
                                  .body = body_of(fill->reply.len, fill),
                                  .args_len = (uint16_t)args.len,
                                  .word = (uint16_t)(command << BLOCK_COMMAND_SHIFT)};
    unsigned char *end = (unsigned char *)(block + 1);
    if (args.len > 0) {
        memcpy(end, args.ptr, args.len);
    }
    memcpy(end + args.len, fill->reply.ptr, fill->reply.len);
    return block;
}

/* ---- changing views ---- */

static void renew_deadline(struct entry *entry)
{
    struct entry_view views[CACHE_VIEWS_MAX + 2];
    const unsigned n = entry_views(entry, views, CACHE_VIEWS_MAX + 2);

    for (unsigned i = 0; i < n; i++) {
        entry->deadline = i == 0 ? views[i].deadline
                                 : later_deadline(entry->deadline, views[i].deadline);
    }
}

void entry_set_holder(struct entry *entry, struct entry *holder, entry_drop_fn drop, void *context)
{
    struct entry *old = holder_of(entry);

    DCHECK((entry->flags & ENTRY_MORE) != 0);
    holder->next = old != NULL ? old->next : entry->body;
    holder->prev = ARENA_NONE;
    entry->body = arena_ref_of(holder);
    entry->flags |= ENTRY_FIRST;
    if (old != NULL) {
        drop(context, old, false);
    }
    renew_deadline(entry);
}

static void unlink_block(struct entry *entry, arena_ref target)
{
    arena_ref *at = first_block(entry);

    while (*at != target) {
        struct entry_block *block = arena_at(*at);
        at = &block->next;
    }
    const struct entry_block *block = arena_at(target);
    *at = block->next;
}

void entry_set_block(struct entry *entry, struct entry_block *block, entry_drop_fn drop,
                     void *context)
{
    struct entry_view same;

    DCHECK((entry->flags & ENTRY_MORE) != 0);
    if (entry_find_view(entry, block_command(block), block_args(block), &same)) {
        unlink_block(entry, same.object);
        drop(context, arena_at(same.object), true);
    }
    arena_ref *at = first_block(entry);
    block->next = *at;
    *at = arena_ref_of(block);
    renew_deadline(entry);
}

void entry_limit_views(struct entry *entry, size_t max_bytes, entry_drop_fn drop, void *context)
{
    for (;;) {
        const struct entry_sizes sizes = entry_measure(entry);

        if (sizes.n_views <= CACHE_VIEWS_MAX && sizes.cost <= max_bytes) {
            break;
        }
        /* New blocks enter at the front, so the last one is the oldest; the newest stays. */
        arena_ref *at = first_block(entry);
        struct entry_block *block = arena_at(*at);
        if (*at == ARENA_NONE || block->next == ARENA_NONE) {
            break;
        }
        while (block->next != ARENA_NONE) {
            at = &block->next;
            block = arena_at(*at);
        }
        *at = ARENA_NONE;
        drop(context, block, true);
    }
    renew_deadline(entry);
}

void entry_drop_view(struct entry *entry, arena_ref object, entry_drop_fn drop, void *context)
{
    struct entry *holder = holder_of(entry);

    if (holder != NULL && arena_ref_of(holder) == object) {
        entry->body = holder->next;
        entry->flags &= (uint8_t)~ENTRY_FIRST;
        drop(context, holder, false);
    } else {
        unlink_block(entry, object);
        drop(context, arena_at(object), true);
    }
    renew_deadline(entry);
}

void entry_drop_views(struct entry *entry, entry_drop_fn drop, void *context)
{
    if ((entry->flags & ENTRY_MORE) == 0) {
        return;
    }
    arena_ref at = first_block_ref(entry);
    struct entry *holder = holder_of(entry);

    if (holder != NULL) {
        drop(context, holder, false);
    }
    while (at != ARENA_NONE) {
        struct entry_block *block = arena_at(at);
        at = block->next;
        drop(context, block, true);
    }
    entry->body = ARENA_NONE;
    entry->flags &= (uint8_t)~ENTRY_FIRST;
}

/* ---- readers ---- */

unsigned entry_pins(const void *object, bool is_block)
{
    return is_block ? ((const struct entry_block *)object)->word & BLOCK_PINS
                    : ((const struct entry *)object)->flags / ENTRY_PIN;
}

void entry_set_pins(void *object, bool is_block, unsigned n_pins)
{
    if (is_block) {
        struct entry_block *block = object;
        block->word = (uint16_t)((block->word & ~BLOCK_PINS) | n_pins);
    } else {
        struct entry *entry = object;
        entry->flags = (uint8_t)((entry->flags & (ENTRY_PIN - 1)) | n_pins * ENTRY_PIN);
    }
}

bool entry_is_detached(const void *object, bool is_block)
{
    return is_block ? (((const struct entry_block *)object)->word & BLOCK_DETACHED) != 0
                    : (((const struct entry *)object)->flags & ENTRY_DETACHED) != 0;
}

void entry_set_detached(void *object, bool is_block)
{
    if (is_block) {
        ((struct entry_block *)object)->word |= BLOCK_DETACHED;
    } else {
        ((struct entry *)object)->flags |= ENTRY_DETACHED;
    }
}
