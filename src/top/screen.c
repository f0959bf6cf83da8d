#include "top/screen.h"

#include "base/clock.h"
#include "base/mem.h"

#include <locale.h>
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>

#define INTERVAL_MIN_S 0.2
#define INTERVAL_MAX_S 60
enum { PAIR_WARNING = 1, PAIR_HEAD };

struct view {
    struct asker *asker;
    struct screen_options options;
    struct reading before, now;
    bool has_reading, is_paused, shows_help;
    int64_t failing_since_us; /* 0: the last answer came */
    char error[ASK_ERROR_LEN];
    size_t first_row;
};

static void refresh_readings(struct view *view)
{
    struct reading fresh;

    if (!reading_take(&fresh, view->asker, view->error)) {
        if (view->failing_since_us == 0) {
            view->failing_since_us = clock_now_us();
        }
        return;
    }
    view->failing_since_us = 0;
    reading_clear(&view->before);
    view->before = view->now;
    view->now = fresh;
    view->has_reading = true;
}

/* -- drawing -- */

static int draw_line(int y, const char *line)
{
    const bool is_warning = strncmp(line, "! ", 2) == 0;

    if (is_warning) {
        attron(COLOR_PAIR(PAIR_WARNING) | A_BOLD);
    }
    mvaddnstr(y, 0, line, COLS);
    attrset(A_NORMAL);
    return y + 1;
}

static int draw_summary(struct view *view, const struct interval *interval)
{
    char *text = NULL, *rest = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    int y = 0;

    CHECK(out != NULL);
    page_summary(interval, asker_address(view->asker), out);
    if (view->failing_since_us != 0) {
        fprintf(out, "! no answer for %.0f s: %s\n",
                (double)(clock_now_us() - view->failing_since_us) / 1e6, view->error);
    }
    fclose(out);
    for (char *line = strtok_r(text, "\n", &rest); line != NULL && y < LINES;
         line = strtok_r(NULL, "\n", &rest)) {
        y = draw_line(y, line);
    }
    free(text);
    return y;
}

/* One line of a table, by the function that prints it. */
static void draw_row(int y, const struct table *table, size_t row, int sorted_by)
{
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);

    CHECK(out != NULL);
    if (row == SIZE_MAX) {
        table_print_head(table, sorted_by, (unsigned)COLS, out);
    } else {
        table_print_row(table, row, (unsigned)COLS, out);
    }
    fclose(out);
    mvaddnstr(y, 0, text, -1);
    free(text);
}

static unsigned order_of(const struct view *view)
{
    return view->options.order < 0 ? page_order(view->options.page) : (unsigned)view->options.order;
}

static void draw_table(struct view *view, const struct interval *interval, int y)
{
    struct table *table = page_table(view->options.page, interval);
    const size_t room = LINES - y > 3 ? (size_t)(LINES - y - 3) : 0;

    table_sort(table, order_of(view), view->options.is_reversed);
    if (view->first_row + room > table_count(table)) {
        view->first_row = table_count(table) > room ? table_count(table) - room : 0;
    }
    attron(COLOR_PAIR(PAIR_HEAD) | A_REVERSE);
    mvhline(y + 1, 0, ' ', COLS);
    draw_row(y + 1, table, SIZE_MAX, (int)order_of(view));
    attrset(A_NORMAL);
    for (size_t i = 0; i < room && view->first_row + i < table_count(table); i++) {
        draw_row(y + 2 + (int)i, table, view->first_row + i, -1);
    }
    table_free(&table);
}

static void draw_help(int y)
{
    static const char *const lines[] = {
        "1 2 3, Tab    namespaces, nodes, reasons of misses and invalidations",
        "< >           the column that the table is sorted by",
        "r             the other way round",
        "arrows, page  scroll",
        "+ -           faster, slower",
        "p             pause; space asks at once",
        "q             quit",
        "",
        "Rates are those since the last reading, at first those since the start. SHARED: reads "
        "that",
        "joined the fetch of another one. STALE: answered while the node could not be asked.",
    };

    for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
        mvaddnstr(y + 1 + (int)i, 2, lines[i], COLS - 2);
    }
}

static void draw(struct view *view)
{
    int y;

    erase();
    if (!view->has_reading) {
        mvaddnstr(0, 0, view->error, COLS);
    } else {
        const struct interval interval = interval_of(&view->before, &view->now);

        y = draw_summary(view, &interval);
        if (view->shows_help) {
            draw_help(y);
        } else {
            draw_table(view, &interval, y);
        }
    }
    attron(A_DIM);
    mvprintw(LINES - 1, 0, "%s, every %g s%s   h: help   q: quit", page_name(view->options.page),
             view->options.interval_s, view->is_paused ? ", PAUSED" : "");
    attrset(A_NORMAL);
    refresh();
}

/* -- keys -- */

static void turn_to(struct view *view, enum page page)
{
    view->options.page = page;
    view->options.order = -1;
    view->options.is_reversed = false;
    view->first_row = 0;
}

static void move_order(struct view *view, int by)
{
    const int n = (int)page_columns(view->options.page);

    view->options.order = ((int)order_of(view) + by + n) % n;
}

static void set_interval(struct view *view, double factor)
{
    double *interval = &view->options.interval_s;

    *interval *= factor;
    *interval = *interval < INTERVAL_MIN_S ? INTERVAL_MIN_S : *interval;
    *interval = *interval > INTERVAL_MAX_S ? INTERVAL_MAX_S : *interval;
}

static void scroll_by(struct view *view, int rows)
{
    const size_t by = (size_t)abs(rows);

    if (rows > 0) {
        view->first_row += by; /* draw_table() keeps it within the table */
    } else {
        view->first_row -= by < view->first_row ? by : view->first_row;
    }
}

/* Returns whether to go on. */
static bool obey(struct view *view, int key)
{
    switch (key) {
    case 'q':
    case 'Q':
        return false;
    case 'h':
    case '?':
        view->shows_help = !view->shows_help;
        break;
    case '\t':
        turn_to(view, (view->options.page + 1) % N_PAGES);
        break;
    case '<':
        move_order(view, -1);
        break;
    case '>':
        move_order(view, 1);
        break;
    case 'r':
        view->options.is_reversed = !view->options.is_reversed;
        break;
    case 'p':
        view->is_paused = !view->is_paused;
        break;
    case '+':
        set_interval(view, 0.5);
        break;
    case '-':
        set_interval(view, 2);
        break;
    case KEY_UP:
    case KEY_DOWN:
        scroll_by(view, key == KEY_DOWN ? 1 : -1);
        break;
    case KEY_PPAGE:
    case KEY_NPAGE:
        scroll_by(view, (key == KEY_NPAGE ? 1 : -1) * (LINES > 12 ? LINES - 12 : 1));
        break;
    default:
        if (key >= '1' && key < '1' + N_PAGES) {
            turn_to(view, (enum page)(key - '1'));
        }
    }
    return true;
}

static void open_terminal(void)
{
    setlocale(LC_ALL, "");
    initscr();
    cbreak();
    noecho();
    keypad(stdscr, TRUE);
    curs_set(0);
    if (has_colors()) {
        start_color();
        use_default_colors();
        init_pair(PAIR_WARNING, COLOR_RED, -1);
        init_pair(PAIR_HEAD, COLOR_CYAN, -1);
    }
}

int screen_run(struct asker *asker, struct screen_options options)
{
    struct view view = {.asker = asker, .options = options};
    int64_t next_us = 0;
    bool goes_on = true;

    open_terminal();
    while (goes_on) {
        int64_t now_us = clock_now_us();
        int key;

        if (now_us >= next_us && !view.is_paused) {
            refresh_readings(&view);
            now_us = clock_now_us();
            next_us = now_us + (int64_t)(view.options.interval_s * 1e6);
        }
        draw(&view);
        timeout(view.is_paused || next_us <= now_us ? 200 : (int)((next_us - now_us) / 1000) + 1);
        key = getch();
        if (key == ' ') {
            refresh_readings(&view);
        } else if (key != ERR) {
            goes_on = obey(&view, key);
        }
    }
    endwin();
    reading_clear(&view.before);
    reading_clear(&view.now);
    return 0;
}
