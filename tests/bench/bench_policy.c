/*
 * Miss ratios of the eviction policy on recorded traces, one logfmt line each, beside the published
 * ones. Traces that are not there are left out.
 *
 *     bench_policy [directory of the traces]...
 */
#include <math.h>
#include <time.h>

#include "../unit/cache/trace.h"

struct reference {
    const char *trace;
    uint64_t capacity;
    double lru, s3fifo;
};

static const struct reference references[] = {
    {"web12", 138, 0.6021, 0.5894},      {"web12", 1376, 0.3151, 0.2774},
    {"web12", 4127, 0.2075, 0.1949},     {"orm-busy", 76, 0.4981, 0.5975},
    {"orm-busy", 763, 0.2297, 0.2436},   {"orm-busy", 7635, 0.1199, 0.1111},
    {"orm-busy", 22905, 0.0565, 0.0518},
};
#define N_REFERENCES (sizeof(references) / sizeof(references[0]))

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void bench(const char *directory, const char *name)
{
    char path[400];
    struct trace trace;

    snprintf(path, sizeof(path), "%s/%s.trace.xz", directory, name);
    if (!trace_read(path, &trace)) {
        return;
    }
    for (size_t i = 0; i < N_REFERENCES; i++) {
        const struct reference *reference = &references[i];
        if (strcmp(reference->trace, name) != 0) {
            continue;
        }
        const double start_s = now_s();
        const double miss_ratio = trace_replay(&trace, reference->capacity);
        printf("bench=policy trace=%s capacity=%lu requests=%zu miss_ratio=%.4f reference=%.4f "
               "difference_percent=%.2f lru=%.4f ns_per_request=%.0f\n",
               name, (unsigned long)reference->capacity, trace.n_requests, miss_ratio,
               reference->s3fifo, (miss_ratio / reference->s3fifo - 1) * 100, reference->lru,
               (now_s() - start_s) * 1e9 / (double)trace.n_requests);
    }
    trace_free(&trace);
}

int main(int argc, char **argv)
{
    if (arena_init((size_t)1 << 30) != 0) {
        return 1;
    }
    if (argc < 2) {
        bench("tests/data", "web12");
        bench("../shared/workloads", "orm-busy");
    }
    for (int i = 1; i < argc; i++) {
        bench(argv[i], "web12");
        bench(argv[i], "orm-busy");
    }
    return 0;
}
