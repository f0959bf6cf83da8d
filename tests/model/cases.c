/*
 * cases.c - the configurations that are searched
 *
 * The form of a configuration: config.c. Letters: r, s read view 0, 1; u relayed read;
 * w write; o, p opaque write, read; capitals the second key. What a configuration leaves
 * out is in another one: all at once would be too many states.
 */
#include "model.h"

const struct config_case config_cases[] = {
    {"writes", "0:3:rwu 1:2:rwu pipe=2 foreign=1", false},
    {"writes, eviction", "0:2:rwu 1:2:rwu pipe=2 foreign=2 evict=1", false},
    {"two views", "0:4:rsu 1:3:rsu pipe=3 views=2 foreign=1", false},
    {"two views, writes", "0:3:rsw 1:3:rsw pipe=2 views=2 foreign=1 evict=1", false},
    {"three sessions", "0:2:rw 0:2:r 1:2:ru pipe=2 foreign=1", false},
    {"three sessions, views", "0:2:rsu 0:1:r 1:2:rs pipe=2 views=2 foreign=1", false},
    {"two keys", "0:3:rRw 1:3:rRu pipe=3 keys=2 foreign=1", false},
    {"lost links", "0:2:rsu 1:2:rs pipe=2 views=2 foreign=1 loss=2 evict=1 overflow=1", false},
    {"lost links, writes", "0:3:rsu 1:2:rsw pipe=2 views=2 loss=1 evict=1", false},
    {"lost relay link", "0:3:rwu 1:2:rw pipe=2 foreign=1 relay-loss=1", false},
    {"flush", "0:2:rsw 1:2:rs pipe=2 views=2 flush=1 loss=1 evict=1", false},
    {"refresh, deadlines", "0:3:rs 1:2:rsu pipe=2 views=2 foreign=1 refresh=1 evict=1 split",
     false},
    {"slow flights", "0:2:rsu 1:2:rs pipe=2 views=2 foreign=1 give-up=1 loss=1", false},
    {"opaque", "0:2:row 1:2:rop pipe=2", false},
    {"opaque, lost link", "0:2:ro 1:2:r pipe=2 foreign=1 loss=1", false},
    {"opaque reads, lost link", "0:2:op 1:2:r pipe=2 foreign=1 loss=1", false},
    {"opaque, three", "0:2:ro 0:2:r 1:2:r pipe=2 foreign=1", false},
    {"opaque, two keys", "0:3:roR 1:2:rRW keys=2 pipe=2", false},
    {"clock", "0:2:ru 1:2:r age=1 pipe=2 foreign=1", false},
    {"clock, larger bound", "0:2:r 1:1:r age=2 foreign=1", false},
    {"clock, lost link", "0:2:r 1:1:r age=1 foreign=1 loss=1", false},
    {"more writes", "0:3:rwu 1:3:rwu pipe=3 foreign=1 evict=1", true},
    {"more of two views", "0:4:rsu 1:2:rsw pipe=3 views=2 foreign=1 evict=1 loss=1", true},
    {"more sessions", "0:2:rw 0:2:r 1:2:rwu pipe=2 foreign=1 evict=1", true},
    {"more of slow flights", "0:3:rsu 1:2:rs pipe=3 views=2 foreign=1 give-up=2", true},
    {"more of opaque", "0:2:row 1:2:rop pipe=2 foreign=1 loss=1", true},
    {"clock, more writes", "0:2:ru 1:2:r age=1 pipe=2 foreign=2", true},
    {"clock, two views", "0:2:rs 1:2:r views=2 age=1 foreign=1 pipe=2", true},
    {"clock, lost link, more", "0:3:ru 1:2:r age=1 foreign=1 loss=1", true},
};
const size_t n_config_cases = sizeof(config_cases) / sizeof(config_cases[0]);

const struct rule_case rule_cases[] = {
    {RULE_COMPLETE_VOID, PROPERTY_I1, "0:2:rw 1:1:r"},
    {RULE_COMPLETE_VOID, PROPERTY_I2, "0:2:rw 1:1:r"},
    {RULE_JOIN_VOID, PROPERTY_I1, "0:2:rw 1:2:r"},
    {RULE_WRITE_DROP, PROPERTY_I1, "0:2:rw 1:1:r"},
    {RULE_WRITE_DROP, PROPERTY_I2, "0:2:rw 1:1:r"},
    {RULE_WRITE_VOID, PROPERTY_I1, "0:2:rw 1:2:rw"},
    {RULE_WRITE_VOID, PROPERTY_I2, "0:2:rw 1:2:rw"},
    {RULE_WRITE_AT_REPLY, PROPERTY_I1, "0:2:rw 1:2:rw"},
    {RULE_FENCE, PROPERTY_I1, "0:2:ro 1:2:ro"},
    {RULE_FENCE, PROPERTY_I4, "0:3:rp 1:1:r foreign=1"},
    {RULE_FENCE_ALL, PROPERTY_I1, "0:2:ro 1:2:ro"},
    {RULE_FENCE_AFTER, PROPERTY_I1, "0:2:ro 1:2:ro"},
    {RULE_READ_DROP, PROPERTY_I4, "0:3:ru 1:1:r foreign=1"},
    {RULE_READ_VOID, PROPERTY_I4, "0:3:ru 1:1:r foreign=1"},
    {RULE_COMPLETE_INVALIDATE, PROPERTY_I4, "0:3:ru 1:2:ru pipe=2 foreign=1"},
    {RULE_HOME, PROPERTY_I4, "0:2:rs 1:1:s views=2 foreign=1"},
    {RULE_ONE_FLIGHT, PROPERTY_I4, "0:3:r 1:2:r pipe=2 foreign=1"},
    {RULE_W3A_WRITE, PROPERTY_I4, "0:3:rw pipe=2"},
    {RULE_W3A_READ, PROPERTY_I4, "0:3:ru pipe=2 foreign=1"},
    {RULE_W3A_WITHHELD, PROPERTY_I4, "0:3:ro pipe=2"},
    {RULE_W3B, PROPERTY_I4, "0:3:ru pipe=2 foreign=1"},
    {RULE_W3B, PROPERTY_I8, "0:2:rw pipe=2"},
    {RULE_W3C, PROPERTY_I4, "0:3:rs 1:1:r views=2 pipe=2 foreign=1"},
    {RULE_W3C_LAST, PROPERTY_I4, "0:4:rs views=2 pipe=3 foreign=1"},
    {RULE_W3C_OWN, PROPERTY_I4, "0:3:rs 1:1:r views=2 pipe=2 foreign=1 evict=1"},
    {RULE_W3_OPAQUE, PROPERTY_I4, "0:2:ro pipe=2"},
    {RULE_W3_OPAQUE, PROPERTY_I8, "0:2:ro pipe=2"},
    {RULE_GIVE_UP_ALL, PROPERTY_I4, "0:2:rs views=2 pipe=2 foreign=1 give-up=1"},
    {RULE_LOST_ORDER, PROPERTY_I4, "0:2:r 1:1:r pipe=2 foreign=1 loss=1"},
    {RULE_HANDOFF_EPOCH, PROPERTY_I4, "0:2:rs 1:2:rs views=2 pipe=2 foreign=1 loss=1 evict=1"},
    {RULE_WATERMARK, PROPERTY_I3, "0:2:r foreign=1 age=1"},
    {RULE_JOIN_AGE, PROPERTY_I3, "0:2:r 1:1:r foreign=1 age=1"},
    {RULE_MESSAGE_DROP, PROPERTY_I3, "0:2:r foreign=1 age=1"},
    {RULE_MESSAGE_DROP, PROPERTY_QUIET, "0:1:r foreign=1"},
    {RULE_MESSAGE_VOID, PROPERTY_I5, "0:1:r foreign=1 split"},
    {RULE_LINK_EPOCH, PROPERTY_I3, "0:2:r foreign=1 loss=1 age=1"},
    {RULE_LINK_EPOCH, PROPERTY_QUIET, "0:1:r foreign=1 loss=1"},
    {RULE_FLUSH_EPOCH, PROPERTY_QUIET, "0:1:r flush=1"},
};
const size_t n_rule_cases = sizeof(rule_cases) / sizeof(rule_cases[0]);
