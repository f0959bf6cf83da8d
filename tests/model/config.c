/*
 * config.c - reads the one-line form of a configuration
 *
 * "0:3:rwu" is a session on worker 0 with up to three requests, each any of r, w, u;
 * "1:=rsw" one with exactly these. "name=number" sets a size or what may happen how often.
 */
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool parse_session(struct config *config, const char *word)
{
    unsigned i = config->n_sessions;
    if (i == MAX_SESSIONS || (word[0] != '0' && word[0] != '1')) {
        return false;
    }
    config->worker[i] = (unsigned)(word[0] - '0');
    const char *menu = strchr(word + 2, ':');
    if (word[2] == '=') {
        config->is_script[i] = true;
        menu = word + 3;
        config->n_requests[i] = (unsigned)strlen(menu);
    } else if (menu != NULL) {
        config->n_requests[i] = (unsigned)strtoul(word + 2, NULL, 10);
        menu++;
    } else {
        return false;
    }
    size_t length = strlen(menu);
    if (length == 0 || length > MAX_MENU || strspn(menu, "rsuwopRSUWOP") != length) {
        return false;
    }
    memcpy(config->menu[i], menu, length + 1);
    config->n_sessions++;
    return true;
}

static bool parse_setting(struct config *config, const char *word)
{
    const struct {
        const char *name;
        unsigned *value;
        unsigned max;
    } settings[] = {
        {"pipe=", &config->pipeline, MAX_PIPELINE},  {"keys=", &config->n_keys, MAX_KEYS},
        {"views=", &config->n_views, MAX_VIEWS},     {"foreign=", &config->n_foreign, 9},
        {"evict=", &config->n_evictions, 9},         {"loss=", &config->n_losses, 9},
        {"relay-loss=", &config->n_relay_losses, 9}, {"overflow=", &config->n_overflows, 9},
        {"refresh=", &config->n_refreshes, 9},       {"flush=", &config->n_flushes, 9},
        {"give-up=", &config->n_give_ups, 9},        {"age=", &config->max_age, MAX_AGE},
    };
    for (size_t i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        size_t length = strlen(settings[i].name);
        if (strncmp(word, settings[i].name, length) == 0) {
            *settings[i].value = (unsigned)strtoul(word + length, NULL, 10);
            return *settings[i].value <= settings[i].max;
        }
    }
    if (strcmp(word, "split") == 0) {
        config->splits_fetch = true;
        return true;
    }
    return false;
}

static bool has_what_menus_name(const struct config *config)
{
    for (unsigned i = 0; i < config->n_sessions; i++) {
        const char *menu = config->menu[i];
        if ((strpbrk(menu, "RSUWOP") != NULL && config->n_keys < 2) ||
            (strpbrk(menu, "sS") != NULL && config->n_views < 2)) {
            return false;
        }
    }
    return config->n_keys > 0 && config->n_views > 0;
}

bool config_parse(struct config *config, const char *spec)
{
    char copy[256];
    char *rest = NULL;
    *config = (struct config){.pipeline = 1, .n_keys = 1, .n_views = 1};
    snprintf(copy, sizeof(copy), "%s", spec);
    for (char *word = strtok_r(copy, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest)) {
        bool is_good = word[0] != '\0' && word[1] == ':' ? parse_session(config, word)
                                                         : parse_setting(config, word);
        if (!is_good) {
            fprintf(stderr, "model: cannot read \"%s\" in \"%s\"\n", word, spec);
            return false;
        }
    }
    if (config->n_sessions == 0 || config->pipeline == 0 || !has_what_menus_name(config)) {
        fprintf(stderr, "model: no session, no pipeline, or too few keys or views in \"%s\"\n",
                spec);
        return false;
    }
    return true;
}
