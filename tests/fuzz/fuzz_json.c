// library: plumb_io
/* Any bytes as JSON text: what is accepted is written and parsed again to an equal value. Bytes that begin like a gzip
 * file go through plumb_json_load, so that the inflater meets hostile input too. */
#include "input_file.h"
#include "plumb/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    json_t *value, *again;
    if (size >= 2 && data[0] == 0x1f && data[1] == 0x8b) {
        char path[64];
        int fd = input_file(data, size, path);
        if (plumb_json_load(&value, path) == PLUMB_OK) json_decref(value);
        close(fd);
    } else if (plumb_json_parse(&value, (const char *)data, size, "input", 1) == PLUMB_OK) {
        char *text = json_dumps(value, JSON_COMPACT);
        if (text) { /* jansson writes a shortest real that may need "inf"; it refuses those */
            size_t n = 0;
            while (text[n]) n++;
            if (plumb_json_parse(&again, text, n, "output", 1) != PLUMB_OK || !json_equal(value, again)) abort();
            json_decref(again);
        }
        free(text);
        json_decref(value);
    }
    return 0;
}
