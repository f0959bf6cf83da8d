/*
 * replay.c - runs a fuzzer's function once for each file, in the stead of libFuzzer: so that what
 * fuzzers found stays found in every test run, with any compiler.
 *
 *     fuzz_bus FILE|DIRECTORY...
 */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <sys/stat.h>

static unsigned n_inputs;

static void run_file(const char *path)
{
    FILE *const file = fopen(path, "rb");
    struct stat status;
    unsigned char *data;
    size_t n;

    if (file == NULL || fstat(fileno(file), &status) != 0) {
        perror(path);
        exit(2);
    }
    data = malloc(status.st_size > 0 ? (size_t)status.st_size : 1);
    MUST(data != NULL);
    n = fread(data, 1, (size_t)status.st_size, file);
    (void)fclose(file);
    /* Where it ends here, the last line says with which input. */
    fprintf(stderr, "%s\n", path);
    MUST(LLVMFuzzerTestOneInput(data, n) == 0);
    n_inputs++;
    free(data);
}

static void run_path(const char *path)
{
    DIR *const directory = opendir(path);
    const struct dirent *entry;

    if (directory == NULL) {
        run_file(path);
        return;
    }
    while ((entry = readdir(directory)) != NULL) {
        char *inner = NULL;

        if (entry->d_name[0] == '.') {
            continue;
        }
        if (asprintf(&inner, "%s/%s", path, entry->d_name) < 0) {
            exit(2);
        }
        run_file(inner);
        free(inner);
    }
    (void)closedir(directory);
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        run_path(argv[i]);
    }
    printf("%u inputs\n", n_inputs);
    return n_inputs > 0 ? 0 : 1;
}
