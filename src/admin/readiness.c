#include "admin/readiness.h"

bool readiness_of(const struct proxy *proxy, const struct discovery *discovery,
                  char text[READINESS_TEXT_MAX])
{
    const char *error = "";

    if (atomic_load_explicit(&proxy->is_leaving, memory_order_relaxed) ||
        atomic_load_explicit(&proxy->is_draining, memory_order_relaxed)) {
        (void)snprintf(text, READINESS_TEXT_MAX, "draining");
        return false;
    }
    if (proxy->config->mode == MODE_OFF) {
        (void)snprintf(text, READINESS_TEXT_MAX, "switched off (mode = off)");
        return false;
    }
    if (atomic_load_explicit(&proxy->is_reachable, memory_order_relaxed)) {
        (void)snprintf(text, READINESS_TEXT_MAX, "ok");
        return true;
    }
    if (discovery != NULL) {
        error = discovery_last_error(discovery);
    }
    (void)snprintf(text, READINESS_TEXT_MAX, "backend unreachable: %s",
                   error[0] != '\0' ? error : "no answer yet");
    return proxy->config->ready_without_backend;
}
