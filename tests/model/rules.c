/* rules.c - the names of rules, properties and events. */
#include "model.h"

#include <stdio.h>
#include <string.h>

const struct rule_text rule_texts[N_RULES] = {
    [RULE_COMPLETE_VOID] = {"complete-void", "a void flight fills nothing"},
    [RULE_JOIN_VOID] = {"join-void", "a void flight takes no joiner"},
    [RULE_WRITE_DROP] = {"write-drop", "the reply of a write drops the views of its key"},
    [RULE_WRITE_VOID] = {"write-void", "the reply of a write voids the flights of its key"},
    [RULE_WRITE_AT_REPLY] = {"write-at-reply", "both happen at the reply, not at the sending"},
    [RULE_FENCE] = {"fence", "an opaque command's reply is withheld until a fence is complete"},
    [RULE_FENCE_ALL] = {"fence-all", "the fence covers the links of all workers"},
    [RULE_FENCE_AFTER] = {"fence-after", "the fence begins after the reply came"},
    [RULE_READ_DROP] = {"read-drop", "the reply of a relayed read drops the views of its key"},
    [RULE_READ_VOID] = {"read-void", "the reply of a relayed read voids the key's flights"},
    [RULE_COMPLETE_INVALIDATE] = {"complete-invalidate",
                                  "a reply that fills nothing drops its key"},
    [RULE_HOME] = {"home", "all views and live flights of a key are on one link"},
    [RULE_ONE_FLIGHT] = {"one-flight", "a view has at most one live flight"},
    [RULE_W3A_WRITE] = {"w3a-write", "a read follows its session's unanswered write, relayed"},
    [RULE_W3A_READ] = {"w3a-read", "a read follows its session's relayed read, relayed"},
    [RULE_W3A_WITHHELD] = {"w3a-withheld", "a withheld reply counts as unanswered there"},
    [RULE_W3B] = {"w3b", "a relayed request waits for its session's cached reads"},
    [RULE_W3C] = {"w3c", "a cached read joins its session's flight, or waits"},
    [RULE_W3C_LAST] = {"w3c-last", "the flight it joins is the one of the last such read"},
    [RULE_W3C_OWN] = {"w3c-own", "a pipelined begin follows only flights of its own session"},
    [RULE_W3_OPAQUE] = {"w3-opaque", "for the order of requests an opaque one touches every key"},
    [RULE_GIVE_UP_ALL] = {"give-up-all",
                          "a read that gives up its flight takes its session's later ones along"},
    [RULE_LOST_ORDER] = {"lost-order", "reads of lost flights are looked up in their order"},
    [RULE_HANDOFF_EPOCH] = {"handoff-epoch", "a fetch mailed under an old link epoch is lost"},
    [RULE_WATERMARK] = {"watermark", "a hit needs a fresh watermark of its link"},
    [RULE_JOIN_AGE] = {"join-age", "a flight older than the bound takes no joiner"},
    [RULE_MESSAGE_DROP] = {"message-drop", "an invalidation drops the views of its key"},
    [RULE_MESSAGE_VOID] = {"message-void", "an invalidation voids the flights of its key"},
    [RULE_LINK_EPOCH] = {"link-epoch", "the loss of a link drops what was read on it"},
    [RULE_FLUSH_EPOCH] = {"flush-epoch", "a null message drops what was read on its link"},
};

const char *const event_names[N_EVENTS] = {
    [EVENT_HIT] = "hit",
    [EVENT_JOIN] = "join",
    [EVENT_BEGIN] = "begin",
    [EVENT_HANDOFF] = "hand-off",
    [EVENT_PIPELINED] = "pipelined begin",
    [EVENT_RELAY] = "relay",
    [EVENT_FILL] = "fill",
    [EVENT_NO_FILL] = "no fill",
    [EVENT_MAILED] = "mailed",
    [EVENT_REFRESH] = "refresh",
    [EVENT_LOST] = "lost read",
    [EVENT_FENCE] = "fence",
    [EVENT_GAVE_UP] = "gave up",
};

static const struct {
    uint32_t property;
    const char *name;
} properties_by_name[] = {
    {PROPERTY_I1, "I1"}, {PROPERTY_I2, "I2"}, {PROPERTY_I3, "I3"},       {PROPERTY_I4, "I4"},
    {PROPERTY_I5, "I5"}, {PROPERTY_I8, "I8"}, {PROPERTY_QUIET, "quiet"}, {PROPERTY_LIVE, "live"},
};

enum { N_PROPERTIES = sizeof(properties_by_name) / sizeof(properties_by_name[0]) };

int rule_by_name(const char *name)
{
    for (int i = 0; i < N_RULES; i++) {
        if (strcmp(rule_texts[i].name, name) == 0) {
            return i;
        }
    }
    return -1;
}

const char *property_names(uint32_t properties, char *out, size_t out_bytes)
{
    size_t used = 0;
    out[0] = '\0';
    for (size_t i = 0; i < N_PROPERTIES && used < out_bytes; i++) {
        if ((properties & properties_by_name[i].property) != 0) {
            used += (size_t)snprintf(out + used, out_bytes - used, "%s%s", used > 0 ? " " : "",
                                     properties_by_name[i].name);
        }
    }
    return out;
}

uint32_t property_by_name(const char *name)
{
    for (size_t i = 0; i < N_PROPERTIES; i++) {
        if (strcmp(properties_by_name[i].name, name) == 0) {
            return properties_by_name[i].property;
        }
    }
    return 0;
}
