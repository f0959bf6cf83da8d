#include "resp/name_index.h"

#include "base/check.h"
#include "resp/command.h"

#define ONES UINT64_C(0x0101010101010101)

/*
 * ASCII letters of eight bytes at once: a byte between 'A' and 'Z' gets its 0x20.
 * Adding to seven bits never carries into the next byte; bytes above 127 stay as they are.
 */
static inline uint64_t lower_case(uint64_t word)
{
    const uint64_t low_bits = word & (0x7f * ONES);
    const uint64_t from_a = low_bits + (0x80 - 'A') * ONES;
    const uint64_t behind_z = low_bits + (0x80 - 'Z' - 1) * ONES;
    const uint64_t is_upper = (from_a ^ behind_z) & ~word & (0x80 * ONES);

    return word | is_upper >> 2;
}

/* len bytes, at most eight, without reading beyond them: two loads that may overlap. */
static inline uint64_t load_short(const unsigned char *at, size_t len)
{
    if (len >= 4) {
        uint32_t first, last;

        memcpy(&first, at, 4);
        memcpy(&last, at + len - 4, 4);
        return first | (uint64_t)last << 8 * (len - 4);
    }
    return at[0] | (uint64_t)at[len / 2] << 8 * (len / 2) | (uint64_t)at[len - 1] << 8 * (len - 1);
}

static inline uint64_t load_word(const unsigned char *at)
{
    uint64_t word;

    memcpy(&word, at, 8);
    return word;
}

struct name_words {
    uint64_t head, tail;
};

/* Both words together hold every byte of a name of up to 16. */
static inline struct name_words words_of(struct bytes name)
{
    struct name_words words = {0, 0};

    if (name.len <= 8) {
        words.head = lower_case(load_short(name.ptr, name.len));
    } else {
        words.head = lower_case(load_word(name.ptr));
        words.tail = lower_case(load_word(name.ptr + name.len - 8));
    }
    return words;
}

static inline unsigned first_slot(const struct name_index *index, uint16_t parent,
                                  struct name_words words, size_t len)
{
    uint64_t hash = words.head ^ (words.tail * 31 + parent + len);

    /* Fibonacci hashing: the product's upper bits depend on every bit. */
    hash *= UINT64_C(0x9e3779b97f4a7c15);
    return (unsigned)(hash >> 40) & (index->n_slots - 1);
}

void name_index_add(struct name_index *index, uint16_t parent, const char *name, uint16_t number)
{
    const struct bytes bytes = bytes_of_string(name);
    struct name_words words;
    unsigned at;

    CHECK(bytes.len > 0 && bytes.len <= COMMAND_NAME_MAX);
    words = words_of(bytes);
    at = first_slot(index, parent, words, bytes.len);
    while (index->slots[at].name != NULL) {
        at = (at + 1) & (index->n_slots - 1);
    }
    index->slots[at] = (struct name_slot){.head = words.head,
                                          .tail = words.tail,
                                          .name = name,
                                          .number = number,
                                          .parent = parent,
                                          .len = (uint8_t)bytes.len};
}

uint16_t name_index_find(const struct name_index *index, uint16_t parent, struct bytes name)
{
    struct name_words words;

    if (NC_UNLIKELY(name.len - 1 >= COMMAND_NAME_MAX)) {
        return NAME_UNKNOWN;
    }
    words = words_of(name);
    for (unsigned at = first_slot(index, parent, words, name.len); index->slots[at].name != NULL;
         at = (at + 1) & (index->n_slots - 1)) {
        const struct name_slot *const slot = &index->slots[at];

        if (slot->head == words.head && slot->tail == words.tail && slot->len == name.len &&
            slot->parent == parent &&
            (NC_LIKELY(name.len <= 16) ||
             bytes_equal_nocase(name, bytes_make(slot->name, slot->len)))) {
            return slot->number;
        }
    }
    return NAME_UNKNOWN;
}
