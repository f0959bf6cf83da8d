/*
 * INFO: a value that is found is the rest of a line that begins with the name; what is known of
 * replicas is bounded, whatever several answers say, and never later than they were asked for.
 *
 * Texts with zero bytes between them are answers one after the other.
 */
#include "fuzz.h"

#include "upstream/info_text.h"
#include "upstream/replicas.h"

static void check_find(struct bytes text, const char *name)
{
    struct bytes value;

    if (!info_text_find(text, name, &value)) {
        return;
    }
    MUST(fuzz_is_within(bytes_make(value.ptr, value.len), text));
    MUST(value.len == 0 || memchr(value.ptr, '\n', value.len) == NULL);
    MUST(value.ptr[-1] == ':' && (size_t)(value.ptr - text.ptr) > strlen(name));
    MUST(memcmp(value.ptr - 1 - strlen(name), name, strlen(name)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes rest = bytes_make(data, size);
    struct replicas replicas = {.n = 0};
    int64_t now_us = 1000000;

    for (unsigned n = 0; rest.len > 0 && n < 100; n++) {
        const struct bytes part = fuzz_part(&rest);
        unsigned char *const copy = fuzz_copy(part);
        const struct bytes text = bytes_make(copy, part.len);

        check_find(text, "redis_version");
        check_find(text, "cluster_state");
        check_find(text, "role");
        replicas_take(&replicas, text, now_us, NULL);
        MUST(replicas.n <= REPLICAS_MAX && replicas.n_samples <= REPLICAS_SAMPLES);
        for (unsigned i = 0; i < replicas.n; i++) {
            MUST(replicas.list[i].port >= 1 && replicas.list[i].port <= 65535);
            MUST(replicas.list[i].host[0] != '\0');
            MUST(memchr(replicas.list[i].host, 0, sizeof(replicas.list[i].host)) != NULL);
            MUST(replicas.list[i].caught_up_us <= now_us);
        }
        now_us += 1000;
        free(copy);
    }
    return 0;
}
