// library: plumb_io
/* Any bytes as a safetensors file: opened or refused; if opened, every tensor can be read to its last byte and
 * converted. */
#include "input_file.h"
#include "plumb/io.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64];
    int fd = input_file(data, size, path);
    plumb_safetensors s;
    if (plumb_safetensors_open(&s, path, NULL) == PLUMB_OK) {
        uint64_t sum = 0, bytes = 0;
        for (int64_t i = 0; i < s.count; i++) {
            const plumb_file_tensor *t = &s.tensors[i];
            float out[32];
            for (size_t k = 0; k < t->bytes; k++) sum += t->data[k];
            bytes += t->bytes;
            if (t->bytes && plumb_tensor_to_float(t, 0, 1, out) == PLUMB_OK) sum += out[0] > 0;
            if (plumb_safetensors_find(&s, t->name) != t) abort();
        }
        if (bytes > size || sum == UINT64_MAX) abort(); /* no byte belongs to two tensors */
        plumb_safetensors_close(&s);
    }
    close(fd);
    return 0;
}
