/* Runs a fuzz entry point without libFuzzer: over the seeds, over every truncation of them (evenly spaced ones where a
 * seed is long), bytes flipped, 64-bit words replaced by extreme values, and parts doubled or left out.  The mutations
 * are the same in every run, so that a failure can be repeated; under the sanitizers this is a test of its own.
 *
 *     driver SEED_FOLDER            driver FILE…  (as they are: to repeat a crash)
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SPOTS = 1500, LARGEST = 1 << 20 };
static long runs;

/* An exact allocation, so that a read behind the end is seen. */
static void run(const uint8_t *data, size_t size) {
    uint8_t *copy = malloc(size ? size : 1);
    if (!copy) abort();
    if (size) memcpy(copy, data, size);
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    runs++;
}

static void flip_bytes(uint8_t *data, size_t size, size_t step) {
    static const uint8_t masks[] = {0x01, 0x80, 0xff, 0x20};
    for (size_t at = 0; at < size; at += step)
        for (size_t i = 0; i < sizeof masks; i++) {
            data[at] ^= masks[i];
            run(data, size);
            data[at] ^= masks[i];
        }
}

static void place_extremes(uint8_t *data, size_t size, size_t step) {
    static const uint64_t extremes[] = {0,         1,          0x7fffffff, UINT32_MAX,
                                        INT64_MAX, 1ull << 63, UINT64_MAX, UINT64_MAX - 31};
    for (size_t at = 0; at + 8 <= size; at += step)
        for (size_t i = 0; i < sizeof extremes / sizeof *extremes; i++) {
            uint8_t kept[8];
            memcpy(kept, data + at, 8);
            memcpy(data + at, &extremes[i], 8);
            run(data, size);
            memcpy(data + at, kept, 8);
        }
}

static void double_parts(const uint8_t *data, size_t size, size_t step) {
    uint8_t *longer = malloc(2 * size + 1);
    if (!longer) abort();
    for (size_t at = 0; at < size; at += 4 * step) {
        size_t n = size - at < 40 ? size - at : 40;
        memcpy(longer, data, at + n);
        memcpy(longer + at + n, data + at, size - at);
        run(longer, size + n);
        memcpy(longer + at, data + at + n, size - at - n); /* and left out */
        run(longer, size - n);
    }
    free(longer);
}

static void mutate(uint8_t *data, size_t size) {
    size_t step = size / SPOTS + 1;
    run(data, size);
    for (size_t n = 0; n < size; n += step) run(data, n);
    flip_bytes(data, size, step);
    place_extremes(data, size, step);
    double_parts(data, size, step);
}

static uint8_t *load(const char *path, size_t *size) {
    FILE *f = fopen(path, "rb");
    uint8_t *data = malloc(LARGEST);
    if (!f || !data) {
        perror(path);
        exit(1);
    }
    *size = fread(data, 1, LARGEST, f);
    fclose(f);
    return data;
}

int main(int argc, char **argv) {
    DIR *folder = argc == 2 ? opendir(argv[1]) : NULL;
    size_t size;
    if (argc < 2) return fprintf(stderr, "usage: %s SEED_FOLDER | FILE...\n", argv[0]), 2;
    for (int i = 1; i < argc && !folder; i++) {
        uint8_t *data = load(argv[i], &size);
        run(data, size);
        free(data);
    }
    run((const uint8_t *)"", 0);
    int seeds = 0;
    for (struct dirent *e; folder && (e = readdir(folder));) {
        char path[4096];
        if (e->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", argv[1], e->d_name);
        uint8_t *data = load(path, &size);
        mutate(data, size);
        free(data);
        seeds++;
    }
    if (folder) closedir(folder);
    printf("%d seeds, %ld runs\n", seeds, runs);
    return folder && !seeds; /* a folder without seeds tests nothing */
}
