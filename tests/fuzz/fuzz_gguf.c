// library: plumb_io
/* Any bytes as a GGUF file: opened or refused; if opened, every value, string and tensor lies inside the file. */
#include "input_file.h"
#include "plumb/io.h"

static uint64_t touch(const void *bytes, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((const uint8_t *)bytes)[i];
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    int fd = input_file(data, size, path);
    plumb_gguf g;
    if (plumb_gguf_open(&g, path) == PLUMB_OK) {
        uint64_t sum = 0, bytes = 0;
        for (int64_t i = 0; i < g.n_values; i++) {
            const plumb_gguf_value *v = &g.values[i];
            sum += touch(v->s.data, v->s.length);
            if (v->items && v->count) sum += v->items[0] + v->items[v->count - 1];
            for (int64_t k = 0; v->strings && k < v->count; k++) sum += touch(v->strings[k].data, v->strings[k].length);
            if (plumb_gguf_find(&g, v->key) != v) abort();
        }
        for (int64_t i = 0; i < g.count; i++) {
            const plumb_file_tensor *t = &g.tensors[i];
            float out[32];
            sum += touch(t->data, t->bytes);
            bytes += t->bytes;
            int64_t block = t->type >= PLUMB_FT_Q4_0 && t->type <= PLUMB_FT_Q8_0 ? 32 : 1;
            if (t->bytes && plumb_tensor_to_float(t, 0, block, out) == PLUMB_OK) sum += out[0] > 0;
            if (plumb_gguf_tensor(&g, t->name) != t) abort();
        }
        if (bytes > size || sum == UINT64_MAX) abort(); /* no byte belongs to two tensors */
        plumb_gguf_close(&g);
    }
    close(fd);
    return 0;
}
