/*
 * test_load.c - proves of config.h and arguments.h: the order of the layers, every form of a flag,
 * secrets leaving argv, reloads that keep the flags and what needs a restart, options that are set
 * one by one, references
 */
#include "config/config.h"

#include "config_testing.h"

#include <unistd.h>

#define ARGUMENTS_MAX 16

/* One run of config_load(), with a file of its own. */
struct run {
    int argc;
    char *argv[ARGUMENTS_MAX + 1];
    char file_name[32];
    enum config_action action;
    struct loaded loaded;
};

static void write_file(struct run *run, const char *text)
{
    FILE *const file = fopen(run->file_name, "w");

    assert_non_null(file);
    fputs(text, file);
    assert_int_equal(fclose(file), 0);
}

static void run_init(struct run *run, const char *text)
{
    *run = (struct run){.argc = 1, .argv = {strdup("nearcached")}};
    strcpy(run->file_name, "/tmp/nc-test-load-XXXXXX");
    close(mkstemp(run->file_name));
    write_file(run, text);
}

static void add(struct run *run, const char *argument)
{
    assert_true(run->argc < ARGUMENTS_MAX);
    run->argv[run->argc++] = strdup(argument);
}

static void load(struct run *run)
{
    size_t size;
    FILE *const errors = open_memstream(&run->loaded.messages, &size);

    run->action = CONFIG_RUN;
    run->loaded.error = config_load(run->argc, run->argv, &run->action, &run->loaded.config,
                                    errors);
    (void)fclose(errors);
}

/* Loads argument by argument: all that follow, up to NULL. */
static void load_with(struct run *run, const char *text, ...)
{
    va_list arguments;
    const char *argument;

    run_init(run, text);
    add(run, "--config");
    add(run, run->file_name);
    va_start(arguments, text);
    while ((argument = va_arg(arguments, const char *)) != NULL) {
        add(run, argument);
    }
    va_end(arguments);
    load(run);
}

static void run_fini(struct run *run)
{
    unload(&run->loaded);
    for (int i = 0; i < run->argc; i++) {
        free(run->argv[i]);
    }
    (void)unlink(run->file_name);
}

static void reload(struct run *run, struct loaded *reloaded)
{
    size_t size;
    FILE *const errors = open_memstream(&reloaded->messages, &size);

    reloaded->config = NULL;
    reloaded->error = config_reload(run->loaded.config, &reloaded->config, errors, errors);
    (void)fclose(errors);
}

static int forget_variables(void **state)
{
    (void)state;
    (void)unsetenv("NEARCACHED_MAXMEMORY");
    (void)unsetenv("NEARCACHED_LISTEN");
    (void)unsetenv("NEARCACHED_CONFIG");
    (void)unsetenv("NEARCACHED_REQUIREPAS");
    (void)unsetenv("NEARCACHED_THREADS");
    (void)unsetenv("NEARCACHED_PORT");
    (void)unsetenv("NEARCACHED_PORT_6380_TCP_ADDR");
    (void)unsetenv("NEARCACHED_ADMIN_SERVICE_HOST");
    return 0;
}

static void flags_beat_variables_and_variables_beat_the_file(void **state)
{
    static const char text[] = "[cache]\nmaxmemory = 1mb\nmax-ttl = 1s\nmax-value = 1kb\n"
                               "[server]\nlisten = 127.0.0.1:1 127.0.0.1:2\n";
    struct run run;

    (void)state;
    (void)setenv("NEARCACHED_MAXMEMORY", "2mb", 1);
    (void)setenv("NEARCACHED_LISTEN", "127.0.0.1:3, 127.0.0.1:4", 1);
    load_with(&run, text, "--max-ttl", "3s", NULL);
    assert_string_equal(run.loaded.messages, "");
    assert_int_equal(run.loaded.config->maxmemory, 2 << 20);
    assert_int_equal(run.loaded.config->max_ttl_ms, 3000);
    assert_int_equal(run.loaded.config->max_value, 1024);
    assert_int_equal(run.loaded.config->n_listeners, 2);
    assert_int_equal(run.loaded.config->listeners[0].port, 3);
    assert_string_equal(config_file_name(run.loaded.config), run.file_name);
    run_fini(&run);

    load_with(&run, text, "--listen", "127.0.0.1:5", "--maxmemory=4mb", "--listen=unix:/x",
              "--maxmemory", "8mb", NULL);
    assert_int_equal(run.loaded.config->maxmemory, 8 << 20);
    assert_int_equal(run.loaded.config->n_listeners, 2);
    assert_int_equal(run.loaded.config->listeners[0].port, 5);
    assert_true(run.loaded.config->listeners[1].is_unix);
    run_fini(&run);
}

static void the_file_may_be_named_by_a_variable(void **state)
{
    struct run run;

    (void)state;
    run_init(&run, "[cache]\nmaxmemory = 3mb\n");
    (void)setenv("NEARCACHED_CONFIG", run.file_name, 1);
    load(&run);
    assert_string_equal(run.loaded.messages, "");
    assert_int_equal(run.loaded.config->maxmemory, 3 << 20);
    run_fini(&run);
}

static void switches_need_no_value(void **state)
{
    struct run run;

    (void)state;
    load_with(&run, "", "--admin-commands", "--multi-get-atomic", "off", "--threads", "2", NULL);
    assert_true(run.loaded.config->admin_commands);
    assert_false(run.loaded.config->multi_get_atomic);
    run_fini(&run);
    load_with(&run, "", "--multi-get-atomic=yes", "--admin-commands", "no", NULL);
    assert_true(run.loaded.config->multi_get_atomic);
    assert_false(run.loaded.config->admin_commands);
    run_fini(&run);
}

static void assert_action(const char *first, const char *second, enum config_action action)
{
    struct run run;

    run_init(&run, "");
    add(&run, first);
    if (second != NULL) {
        add(&run, second);
    }
    load(&run);
    assert_string_equal(run.loaded.messages, "");
    assert_int_equal(run.loaded.error, 0);
    assert_int_equal(run.action, action);
    assert_int_equal(run.loaded.config != NULL, action == CONFIG_TEST || action == CONFIG_RUN);
    run_fini(&run);
}

static void flags_may_ask_for_something_else_than_running(void **state)
{
    (void)state;
    assert_action("-t", NULL, CONFIG_TEST);
    assert_action("--test", NULL, CONFIG_TEST);
    assert_action("--threads=1", NULL, CONFIG_RUN);
    assert_action("--version", NULL, CONFIG_VERSION);
    assert_action("--help", NULL, CONFIG_HELP);
    assert_action("-h", "-t", CONFIG_HELP);
    assert_action("--describe", NULL, CONFIG_DESCRIBE_CONFIG);
    assert_action("--describe", "config", CONFIG_DESCRIBE_CONFIG);
    assert_action("--describe", "metrics", CONFIG_DESCRIBE_METRICS);
    assert_action("--describe=metrics", NULL, CONFIG_DESCRIBE_METRICS);
}

static void wrong_flags_are_all_reported(void **state)
{
    struct run run;

    (void)state;
    load_with(&run, "", "--maxmemori", "1gb", "stray", "-x", "--max-ttl", "5", "--describe", "all",
              "--test=1", "--threads", NULL);
    assert_true(run.loaded.error < 0);
    assert_null(run.loaded.config);
    assert_string_equal(
        run.loaded.messages,
        "command line: unknown flag --maxmemori, did you mean --maxmemory?\n"
        "command line: unexpected argument stray (a file is given with --config FILE)\n"
        "command line: unknown flag -x\n"
        "command line: --describe all: expected config or metrics\n"
        "command line: --test takes no value\n"
        "command line: --threads needs a value\n"
        "command line: --max-ttl = 5: expected a time from 1ms to 30d, with its unit (ms, s, m, h, "
        "d)\n");
    run_fini(&run);
    load_with(&run, "", "--requirepass", "--threads", "1", NULL);
    assert_string_equal(run.loaded.messages, "command line: --requirepass needs a value\n");
    run_fini(&run);
}

static void variables_are_checked_but_for_those_of_kubernetes(void **state)
{
    struct run run;

    (void)state;
    (void)setenv("NEARCACHED_PORT", "tcp://10.0.0.1:6380", 1);
    (void)setenv("NEARCACHED_PORT_6380_TCP_ADDR", "10.0.0.1", 1);
    (void)setenv("NEARCACHED_ADMIN_SERVICE_HOST", "10.0.0.1", 1);
    load_with(&run, "", NULL);
    assert_string_equal(run.loaded.messages, "");
    run_fini(&run);

    (void)setenv("NEARCACHED_REQUIREPAS", "hunter2", 1);
    (void)setenv("NEARCACHED_THREADS", "99", 1);
    load_with(&run, "", NULL);
    assert_true(run.loaded.error < 0);
    assert_string_equal(run.loaded.messages,
                        "environment: NEARCACHED_THREADS = 99: expected a whole number from 0 to "
                        "64\n"
                        "environment: unknown variable NEARCACHED_REQUIREPAS, did you mean "
                        "NEARCACHED_REQUIREPASS?\n");
    run_fini(&run);
}

static void a_file_that_cannot_be_read_is_an_error(void **state)
{
    struct run run;

    (void)state;
    run_init(&run, "");
    add(&run, "--config=/nonexistent/nearcached.conf");
    load(&run);
    assert_true(run.loaded.error < 0);
    assert_string_equal(run.loaded.messages, "/nonexistent/nearcached.conf: cannot be opened: No "
                                             "such file or directory\n");
    run_fini(&run);

    run_init(&run, "");
    add(&run, "--config=/tmp");
    load(&run);
    assert_true(run.loaded.error < 0);
    assert_string_equal(run.loaded.messages, "/tmp: cannot be read: Is a directory\n");
    run_fini(&run);
}

static void secrets_leave_the_command_line(void **state)
{
    struct run run;

    (void)state;
    load_with(&run, "", "--requirepass", "hunter2", "--cache-password=swordfish", "--backend",
              "redis://joe:s3cret@h:1/2", NULL);
    assert_string_equal(run.loaded.messages, "");
    assert_string_equal(run.loaded.config->requirepass, "hunter2");
    assert_string_equal(run.loaded.config->cache_password, "swordfish");
    assert_string_equal(run.loaded.config->target.password, "s3cret");
    assert_string_equal(run.argv[4], "xxxxxxx");
    assert_string_equal(run.argv[5], "--cache-password=xxxxxxxxx");
    assert_string_equal(run.argv[7], "redis://xxxxxxxxxx@h:1/2");
    run_fini(&run);

    load_with(&run, "", "--backend=redis://joe:s3cret@h:0", "--requirepass=hunter2", "--nonsense",
              NULL);
    assert_true(run.loaded.error < 0);
    assert_string_equal(run.argv[3], "--backend=redis://xxxxxxxxxx@h:0");
    assert_string_equal(run.argv[4], "--requirepass=xxxxxxx");
    assert_null(strstr(run.loaded.messages, "s3cret"));
    run_fini(&run);
}

static void a_reload_reads_the_file_under_the_same_flags(void **state)
{
    struct run run;
    struct loaded reloaded;

    (void)state;
    load_with(&run, "[cache]\nmax-ttl = 1s\n", "--maxmemory", "2mb", "--requirepass", "hunter2",
              NULL);
    write_file(&run, "[cache]\nmax-ttl = 2s\nmaxmemory = 9mb\n[namespace n]\nmatch = n*\n");
    reload(&run, &reloaded);
    assert_string_equal(reloaded.messages, "");
    assert_int_equal(reloaded.error, 0);
    assert_int_equal(run.loaded.config->max_ttl_ms, 1000);
    assert_int_equal(reloaded.config->max_ttl_ms, 2000);
    assert_int_equal(reloaded.config->maxmemory, 2 << 20);
    assert_string_equal(reloaded.config->requirepass, "hunter2");
    assert_int_equal(reloaded.config->n_namespaces, 2);

    /* And again, from the reloaded one, after the first is gone. */
    config_unref(&run.loaded.config);
    run.loaded.config = reloaded.config;
    free(reloaded.messages);
    write_file(&run, "[cache]\nmax-ttl = oops\n");
    reload(&run, &reloaded);
    assert_true(reloaded.error < 0);
    assert_null(reloaded.config);
    assert_non_null(strstr(reloaded.messages, ":2: max-ttl = oops: expected a time"));
    unload(&reloaded);
    run_fini(&run);
}

static void a_reload_keeps_what_needs_a_restart_and_says_so(void **state)
{
    struct run run;
    struct loaded reloaded;
    char expected[512];

    (void)state;
    load_with(&run, "[server]\nthreads = 2\n[backend]\nbackend-password = one\n", NULL);
    write_file(&run, "[server]\nlisten = 127.0.0.1:7\n[backend]\nbackend-password = two\n"
                     "address-map = a=b c=d\n");
    reload(&run, &reloaded);
    assert_int_equal(reloaded.error, 0);
    (void)snprintf(expected, sizeof(expected),
                   "default: threads = 0: a change needs a restart, in force is 2\n"
                   "%s:4: backend-password = (hidden): a change needs a restart, in force is "
                   "(hidden)\n"
                   "%s:5: address-map = a=b c=d: a change needs a restart, in force is \n",
                   run.file_name, run.file_name);
    assert_string_equal(reloaded.messages, expected);
    assert_int_equal(reloaded.config->threads, 2);
    assert_string_equal(reloaded.config->backend_password, "one");
    assert_int_equal(reloaded.config->address_map.n, 0);
    assert_int_equal(reloaded.config->mappings.n, 0);
    assert_string_equal(reloaded.config->listen.items[0], "127.0.0.1:7");
    unload(&reloaded);
    run_fini(&run);
}

/* What config_set() makes of these; "" for no error. */
static void set(struct run *run, const struct config_assignment *pairs, unsigned n,
                struct loaded *done)
{
    size_t size;
    FILE *const errors = open_memstream(&done->messages, &size);

    done->config = NULL;
    done->error = config_set(run->loaded.config, pairs, n, &done->config, errors);
    (void)fclose(errors);
}

static void one_option_is_set_and_nothing_else_changes(void **state)
{
    static const struct config_assignment pairs[] = {
        {NULL, "max-ttl", "5s"}, {"n", "cache", "off"}, {NULL, "listen", "127.0.0.1:9"}};
    static const struct config_assignment again[] = {{"default", "max-ttl", "6s"}};
    struct run run;
    struct loaded done, twice, reloaded;

    (void)state;
    load_with(&run, "[cache]\nmax-ttl = 1s\n[namespace n]\nmatch = n*\n", "--max-ttl", "3s", NULL);
    write_file(&run, "[cache]\nmax-value = nonsense\n");
    set(&run, pairs, 3, &done);
    assert_string_equal(done.messages, "");
    assert_int_equal(done.config->max_ttl_ms, 5000);
    assert_int_equal(done.config->namespaces[1].max_ttl_ms, 5000);
    assert_false(done.config->namespaces[1].cache);
    assert_int_equal(done.config->listen.n, 1);
    assert_int_equal(run.loaded.config->max_ttl_ms, 3000);

    /* On top of the first. */
    config_unref(&run.loaded.config);
    run.loaded.config = done.config;
    set(&run, again, 1, &twice);
    assert_string_equal(twice.messages, "");
    assert_int_equal(twice.config->namespaces[0].max_ttl_ms, 6000);
    assert_int_equal(twice.config->namespaces[1].max_ttl_ms, 5000);

    /* A reload forgets. */
    write_file(&run, "");
    reload(&run, &reloaded);
    assert_int_equal(reloaded.error, 0);
    assert_int_equal(reloaded.config->max_ttl_ms, 3000);
    assert_int_equal(reloaded.config->n_namespaces, 1);
    unload(&reloaded);
    unload(&twice);
    free(done.messages);
    run_fini(&run);
}

static void what_is_wrong_with_one_is_wrong_with_all(void **state)
{
    static const struct config_assignment pairs[] = {{NULL, "max-ttl", "5s"},
                                                     {NULL, "threads", "3"},
                                                     {"m", "max-ttl", "1s"},
                                                     {NULL, "maxmemry", "1gb"}};
    static const struct config_assignment restart[] = {{NULL, "threads", "3"},
                                                       {NULL, "backend-password", "secret"}};
    struct run run;
    struct loaded done;

    (void)state;
    load_with(&run, "[server]\nthreads = 2\n", NULL);
    set(&run, pairs, 4, &done);
    assert_true(done.error < 0);
    assert_string_equal(done.messages,
                        "CACHE CONFIG SET: there is no namespace m\n"
                        "CACHE CONFIG SET: unknown option maxmemry, did you mean maxmemory?\n");
    unload(&done);
    set(&run, restart, 2, &done);
    assert_string_equal(
        done.messages,
        "CACHE CONFIG SET: threads = 3: a change needs a restart, in force is 2\n"
        "CACHE CONFIG SET: backend-password = (hidden): a change needs a restart, in force is "
        "(empty)\n");
    unload(&done);
    run_fini(&run);
}

/* " bypass n=off": what was set, as a successor is told. */
static void modes_outlive_reloads(void **state)
{
    static const struct config_assignment pairs[] = {
        {NULL, "mode", "bypass"}, {"n", "mode", "readonly"}, {"m", "mode", "off"}};
    struct run run;
    struct loaded done, reloaded;
    char *text;
    size_t size;
    FILE *out;

    (void)state;
    load_with(&run, "[namespace n]\nmatch = n*\n[namespace m]\nmatch = m*\n", NULL);
    assert_false(run.loaded.config->has_refusals);
    set(&run, pairs, 3, &done);
    assert_string_equal(done.messages, "");
    config_unref(&run.loaded.config);
    run.loaded.config = done.config;
    write_file(&run, "[cache]\nmode = on\n[namespace n]\nmatch = n*\n");
    reload(&run, &reloaded);
    assert_string_equal(reloaded.messages, "");
    assert_int_equal(reloaded.config->n_namespaces, 2);
    assert_int_equal(config_mode_of(reloaded.config, &reloaded.config->namespaces[0]), MODE_BYPASS);
    assert_int_equal(config_mode_of(reloaded.config, &reloaded.config->namespaces[1]),
                     MODE_READONLY);
    assert_false(reloaded.config->namespaces[1].cache);
    assert_true(reloaded.config->namespaces[1].has_cache);
    assert_true(reloaded.config->has_refusals);
    out = open_memstream(&text, &size);
    config_modes_set(reloaded.config, out);
    (void)fclose(out);
    assert_string_equal(text, "=bypass n=readonly ");
    free(text);
    unload(&reloaded);
    free(done.messages);
    run_fini(&run);
}

struct differences {
    char text[1024];
};

static void note(void *context, const char *option, const char *before, const char *after)
{
    struct differences *const found = context;
    const size_t len = strlen(found->text);

    (void)snprintf(found->text + len, sizeof(found->text) - len, "%s: %s -> %s\n", option,
                   before != NULL ? before : "-", after != NULL ? after : "-");
}

static void differences_are_told_without_secrets(void **state)
{
    struct config *former = assert_accepted("[server]\nrequirepass = one\n[cache]\nmax-ttl = 1s\n"
                                            "[namespace a]\nmatch = a*\n"
                                            "[namespace b]\nmatch = b*\nmax-ttl = 1s\n");
    struct config *fresh = assert_accepted("[server]\nrequirepass = two\n[cache]\nmax-ttl = 2s\n"
                                           "[namespace b]\nmatch = c*\nmax-ttl = 3s\n");
    struct differences found = {.text = ""};

    (void)state;
    assert_int_equal(config_diff(former, former, note, &found), 0);
    (void)config_diff(former, fresh, note, &found);
    assert_non_null(strstr(found.text, "requirepass: (hidden) -> (hidden)\nmax-ttl: 1s -> 2s\n"));
    assert_non_null(strstr(found.text, "namespace.b.match: b* -> c*\n"));
    assert_non_null(strstr(found.text, "namespace.b.max-ttl: 1s -> 3s\n"));
    assert_non_null(strstr(found.text, "namespace.a.match: a* -> -\n"));
    assert_null(strstr(found.text, "default"));
    config_unref(&former);
    config_unref(&fresh);
}

static void a_snapshot_lives_until_its_last_reference_goes(void **state)
{
    struct config *config = assert_accepted("[cache]\nmaxmemory = 1gb\n");
    struct config *other = config_ref(config);

    (void)state;
    config_unref(&config);
    assert_null(config);
    assert_int_equal(other->maxmemory, 1 << 30);
    config_unref(&other);
    config_unref(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(flags_beat_variables_and_variables_beat_the_file,
                                  forget_variables),
        cmocka_unit_test_teardown(the_file_may_be_named_by_a_variable, forget_variables),
        cmocka_unit_test(switches_need_no_value),
        cmocka_unit_test(flags_may_ask_for_something_else_than_running),
        cmocka_unit_test(wrong_flags_are_all_reported),
        cmocka_unit_test_teardown(variables_are_checked_but_for_those_of_kubernetes,
                                  forget_variables),
        cmocka_unit_test(a_file_that_cannot_be_read_is_an_error),
        cmocka_unit_test(secrets_leave_the_command_line),
        cmocka_unit_test(a_reload_reads_the_file_under_the_same_flags),
        cmocka_unit_test(a_reload_keeps_what_needs_a_restart_and_says_so),
        cmocka_unit_test(one_option_is_set_and_nothing_else_changes),
        cmocka_unit_test(what_is_wrong_with_one_is_wrong_with_all),
        cmocka_unit_test(modes_outlive_reloads),
        cmocka_unit_test(differences_are_told_without_secrets),
        cmocka_unit_test(a_snapshot_lives_until_its_last_reference_goes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
