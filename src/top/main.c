/*
 * nearcached-top - what a nearcached does, in a terminal
 *
 * Asks the admin port for the JSON of docs/status.md every so often. With --once it prints what it
 * learns and ends, as text or, with --json, for programs.
 */
#include "base/mem.h"
#include "base/version.h"
#include "top/screen.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define ANSWER_TIMEOUT_S 5
#define TEXT_WIDTH 200
#define TOKEN_MAX 1024

static const char usage[] =
    "usage: nearcached-top [OPTION...] [HOST:PORT]\n"
    "\n"
    "Shows what the nearcached with this admin port does; 127.0.0.1:9380 when none is given.\n"
    "\n"
    "  -i, --interval SECONDS   between two readings, 0.2 to 60 (2)\n"
    "  -p, --page PAGE          namespaces, nodes or reasons: what to begin with\n"
    "  -s, --sort COLUMN        sorted by this column, by its heading\n"
    "  -r, --reverse            the other way round\n"
    "  -o, --once               print once and end: figures since the start\n"
    "  -j, --json               with --once: everything as JSON\n"
    "  -t, --token-file FILE    holds the token, where the admin port wants one;\n"
    "                           else it is taken from NEARCACHED_TOKEN\n"
    "  -V, --version\n"
    "  -h, --help\n";

struct arguments {
    const char *where, *sort, *token_file;
    struct screen_options screen;
    bool is_once, is_json;
};

static void refuse(const char *what, const char *why)
{
    fprintf(stderr, "nearcached-top: %s%s%s\n", what, why[0] == '\0' ? "" : ": ", why);
    exit(2);
}

static enum page page_called(const char *name)
{
    for (int page = 0; page < N_PAGES; page++) {
        if (strcmp(page_name((enum page)page), name) == 0) {
            return (enum page)page;
        }
    }
    refuse(name, "expected namespaces, nodes or reasons");
    return N_PAGES;
}

static double seconds_of(const char *text)
{
    char *end;
    double seconds;

    errno = 0;
    seconds = strtod(text, &end);
    if (errno != 0 || *end != '\0' || end == text || !(seconds >= 0.2 && seconds <= 60)) {
        refuse(text, "expected seconds from 0.2 to 60");
    }
    return seconds;
}

static struct arguments parse(int argc, char **argv)
{
    static const struct option options[] = {{"interval", required_argument, NULL, 'i'},
                                            {"page", required_argument, NULL, 'p'},
                                            {"sort", required_argument, NULL, 's'},
                                            {"reverse", no_argument, NULL, 'r'},
                                            {"once", no_argument, NULL, 'o'},
                                            {"json", no_argument, NULL, 'j'},
                                            {"token-file", required_argument, NULL, 't'},
                                            {"version", no_argument, NULL, 'V'},
                                            {"help", no_argument, NULL, 'h'},
                                            {NULL, 0, NULL, 0}};
    struct arguments arguments = {.where = "127.0.0.1:9380",
                                  .screen = {.interval_s = 2, .order = -1}};
    int option;

    while ((option = getopt_long(argc, argv, "i:p:s:rojt:Vh", options, NULL)) != -1) {
        switch (option) {
        case 'i':
            arguments.screen.interval_s = seconds_of(optarg);
            break;
        case 'p':
            arguments.screen.page = page_called(optarg);
            break;
        case 's':
            arguments.sort = optarg;
            break;
        case 'r':
            arguments.screen.is_reversed = true;
            break;
        case 'o':
            arguments.is_once = true;
            break;
        case 'j':
            arguments.is_json = true;
            break;
        case 't':
            arguments.token_file = optarg;
            break;
        case 'V':
            puts("nearcached-top " NC_VERSION);
            exit(0);
        case 'h':
            fputs(usage, stdout);
            exit(0);
        default:
            exit(2);
        }
    }
    if (optind < argc) {
        arguments.where = argv[optind++];
    }
    if (optind < argc) {
        refuse(argv[optind], "one address is enough");
    }
    if (arguments.is_json && !arguments.is_once) {
        refuse("--json", "goes with --once");
    }
    return arguments;
}

/* NULL: none. The caller frees it. */
static char *read_token(const char *file)
{
    char line[TOKEN_MAX];
    FILE *in;

    if (file == NULL) {
        const char *token = getenv("NEARCACHED_TOKEN");

        return token == NULL ? NULL : mem_strdup(token);
    }
    in = fopen(file, "r");
    if (in == NULL) {
        fprintf(stderr, "nearcached-top: %s: %s\n", file, strerror(errno));
        exit(2);
    }
    if (fgets(line, sizeof(line), in) == NULL) {
        line[0] = '\0';
    }
    fclose(in);
    line[strcspn(line, "\r\n")] = '\0';
    return mem_strdup(line);
}

static void print_text(const struct reading *reading, const struct asker *asker,
                       const struct screen_options *options)
{
    const struct interval interval = interval_of(NULL, reading);
    struct table *table = page_table(options->page, &interval);
    const unsigned order = options->order < 0 ? page_order(options->page)
                                              : (unsigned)options->order;

    page_summary(&interval, asker_address(asker), stdout);
    table_sort(table, order, options->is_reversed);
    putchar('\n');
    table_print_head(table, (int)order, TEXT_WIDTH, stdout);
    putchar('\n');
    for (size_t i = 0; i < table_count(table); i++) {
        table_print_row(table, i, TEXT_WIDTH, stdout);
        putchar('\n');
    }
    table_free(&table);
}

static int print_once(struct asker *asker, const struct arguments *arguments)
{
    char error[ASK_ERROR_LEN];
    struct reading reading;

    if (!reading_take(&reading, asker, error)) {
        fprintf(stderr, "nearcached-top: %s\n", error);
        return 1;
    }
    if (arguments->is_json) {
        json_t *all = reading_json(&reading);

        json_dumpf(all, stdout, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
        putchar('\n');
        json_decref(all);
    } else {
        print_text(&reading, asker, &arguments->screen);
    }
    reading_clear(&reading);
    return fflush(stdout) == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    struct arguments arguments = parse(argc, argv);
    char *token = read_token(arguments.token_file);
    char error[ASK_ERROR_LEN];
    struct asker *asker = asker_new(arguments.where, token, ANSWER_TIMEOUT_S, error);
    int status;

    mem_free(token);
    if (asker == NULL) {
        refuse(error, "");
    }
    if (arguments.sort != NULL) {
        arguments.screen.order = page_column(arguments.screen.page, arguments.sort);
        if (arguments.screen.order < 0) {
            refuse(arguments.sort, "the page has no such column");
        }
    }
    status = arguments.is_once ? print_once(asker, &arguments)
                               : screen_run(asker, arguments.screen);
    asker_free(&asker);
    return status;
}
