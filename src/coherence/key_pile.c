/*
 * Blocks of 64 KiB: small enough that a worker fills, and the control thread frees, several of them
 * within a tenth of a millisecond. A name that is longer has a block of its own.
 */
#include "coherence/key_pile.h"

#include <string.h>

#include "base/mem.h"

#define BLOCK_BYTES ((size_t)64 * 1024)
/* That are freed at a time. */
#define FREED_AT_ONCE 32u

struct key_block {
    struct key_block *next;
    size_t used, room;
    unsigned char data[]; /* a length (size_t) and so many bytes, and so on */
};

static struct key_block *last_with_room(struct key_pile *pile, size_t needs)
{
    const size_t usual = BLOCK_BYTES - sizeof(struct key_block);
    const size_t room = needs > usual ? needs : usual;
    struct key_block *block = pile->last;

    if (block != NULL && needs <= block->room - block->used) {
        return block;
    }
    block = mem_try_alloc(sizeof(*block) + room);
    if (block == NULL) {
        return NULL;
    }
    block->next = NULL;
    block->used = 0;
    block->room = room;
    *(pile->last != NULL ? &pile->last->next : &pile->first) = block;
    pile->last = block;
    return block;
}

bool key_pile_add(struct key_pile *pile, struct bytes key)
{
    const size_t needs = sizeof(key.len) + key.len;
    struct key_block *block = last_with_room(pile, needs);

    if (block == NULL) {
        return false;
    }
    memcpy(block->data + block->used, &key.len, sizeof(key.len));
    if (key.len > 0) {
        memcpy(block->data + block->used + sizeof(key.len), key.ptr, key.len);
    }
    block->used += needs;
    pile->n++;
    pile->n_bytes += needs;
    return true;
}

bool key_pile_next(const struct key_pile *pile, struct key_place *place, struct bytes *key)
{
    size_t length;

    if (place->block == NULL) {
        place->block = pile->first;
    }
    while (place->block != NULL && place->at == place->block->used && place->block->next != NULL) {
        place->block = place->block->next;
        place->at = 0;
    }
    if (place->block == NULL || place->at == place->block->used) {
        return false;
    }
    memcpy(&length, place->block->data + place->at, sizeof(length));
    *key = bytes_make(place->block->data + place->at + sizeof(length), length);
    place->at += sizeof(length) + length;
    place->n++;
    return true;
}

void key_pile_move(struct key_pile *to, struct key_pile *from)
{
    if (from->first != NULL) {
        *(to->last != NULL ? &to->last->next : &to->first) = from->first;
        to->last = from->last;
        to->n += from->n;
        to->n_bytes += from->n_bytes;
    }
    *from = (struct key_pile){0};
}

bool key_pile_free_some(struct key_pile *pile)
{
    for (unsigned i = 0; i < FREED_AT_ONCE && pile->first != NULL; i++) {
        struct key_block *next = pile->first->next;

        mem_free(pile->first);
        pile->first = next;
    }
    if (pile->first == NULL) {
        *pile = (struct key_pile){0};
    }
    return pile->first != NULL;
}

void key_pile_free(struct key_pile *pile)
{
    while (key_pile_free_some(pile)) {
    }
}
