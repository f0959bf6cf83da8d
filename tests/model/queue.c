/* queue.c - FIFO queues in a word; see model.h for the layout. */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>

unsigned queue_length(uint64_t queue)
{
    return queue == 0 ? 0 : (71U - (unsigned)__builtin_clzll(queue)) / 8;
}

void queue_push(uint64_t *queue, enum item_kind kind, unsigned arg)
{
    unsigned length = queue_length(*queue);
    if (length == 8) {
        fputs("model: a queue of the model is full; take a smaller configuration\n", stderr);
        exit(2);
    }
    *queue |= (uint64_t)((unsigned)kind << 4 | arg) << (8 * length);
}

uint8_t queue_pop(uint64_t *queue)
{
    uint8_t item = (uint8_t)*queue;
    *queue >>= 8;
    return item;
}
