#include "proxy/sample.h"

#include "cache/hot_keys.h"
#include "coherence/audit.h"

/* The nearer of the two; 0 is never. */
static void begin_step(struct front_sample *sample)
{
    sample->step = sample->audit_left;
    if (sample->step == 0 || (sample->hot_left != 0 && sample->hot_left < sample->step)) {
        sample->step = sample->hot_left;
    }
    sample->left = sample->step;
}

void sample_begin(struct front *front)
{
    front->sample.audit_left = audit_interval(front->coherence.auditor);
    front->sample.hot_left = hot_keys_interval();
    begin_step(&front->sample);
}

/* True: it is due. */
static bool count_down(uint64_t *left, uint64_t step)
{
    if (*left == 0) {
        return false;
    }
    *left -= step;
    return *left == 0;
}

void __attribute__((noinline)) sample_take(struct front *front, const struct cache_query *query,
                                           const struct command *command, size_t reply_bytes)
{
    struct front_sample *sample = &front->sample;
    const bool is_audit = count_down(&sample->audit_left, sample->step);
    const bool is_hot = count_down(&sample->hot_left, sample->step);

    if (is_audit) {
        sample->audit_left = audit_interval(front->coherence.auditor);
        audit_hit(front->coherence.auditor, query, command);
    }
    if (is_hot) {
        sample->hot_left = hot_keys_interval();
        hot_keys_hit(query->hash, query->key, reply_bytes, query->now_us);
    }
    begin_step(sample);
}
