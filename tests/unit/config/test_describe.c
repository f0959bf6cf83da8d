/*
 * test_describe.c - proves of config.h: --help and --describe name every option with its default
 * and range, and every metric with its type and labels
 */
#include "config/options.h"

#include "config_testing.h"

static char *printed(void (*print)(FILE *out))
{
    char *text = NULL;
    size_t size;
    FILE *const out = open_memstream(&text, &size);

    print(out);
    (void)fclose(out);
    return text;
}

static void assert_has(const char *text, const char *part)
{
    if (strstr(text, part) == NULL) {
        fail_msg("missing: %s", part);
    }
}

static void every_option_is_described(void **state)
{
    char *const reference = printed(config_describe), *const usage = printed(config_usage);
    unsigned n;
    const struct config_option *const options = config_options(&n);

    (void)state;
    for (unsigned i = 0; i < n; i++) {
        char part[OPTION_TEXT_MAX];

        (void)snprintf(part, sizeof(part), "\n%s = %s\n", options[i].spelling,
                       options[i].is_override ? "(as in [cache])" : options[i].initial);
        assert_has(reference, part);
        config_option_expected(&options[i], part);
        assert_has(reference, part);
        if (!options[i].is_local) {
            (void)snprintf(part, sizeof(part), "\n  --%s ", options[i].spelling);
            assert_has(usage, part);
        }
    }
    assert_null(strstr(usage, "--match"));
    assert_has(reference, "a size from 1mb to 48gb; may change by a reload\n");
    assert_has(reference, "a whole number from 0 to 64; a change needs a restart\n");
    free(reference);
    free(usage);
}

static void assert_stands_once(const char *text, const char *part)
{
    const char *const first = strstr(text, part);

    assert_non_null(first);
    assert_null(strstr(first + 1, part));
}

static void every_metric_is_described_once(void **state)
{
    char *const reference = printed(config_describe_metrics);

    (void)state;
    assert_has(reference, "nearcached_hits_total counter\n    reads answered from tier 1\n"
                          "    namespace=\"NAME\"\n");
    assert_has(reference, "nearcached_request_duration_seconds histogram\n");
    assert_has(reference, "    outcome=\"relayed\"\n");
    assert_has(reference, "nearcached_uptime_seconds gauge\n    time since start\n");
#define LINE(id, name, labels, help) assert_stands_once(reference, "nearcached_" name " ");
#define STANDARD_LINE(id, name, labels, help) assert_stands_once(reference, name " ");
#define COUNTER LINE
#define NS_COUNTER LINE
#define READ_COUNTER LINE
#define NS_READ_COUNTER LINE
#define COUNTER_LIST LINE
#define GAUGE LINE
#define NS_GAUGE LINE
#define GAUGE_LIST LINE
#define HISTOGRAM LINE
#define NS_HISTOGRAM LINE
#define STANDARD_GAUGE STANDARD_LINE
#define STANDARD_COUNTER STANDARD_LINE
#include "tables/metrics.def"
    free(reference);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_is_described),
        cmocka_unit_test(every_metric_is_described_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
