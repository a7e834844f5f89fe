/* Texts of one example to ids, and where its targets are. */
#ifndef PLUMB_DATA_ENCODE_H
#define PLUMB_DATA_ENCODE_H
#include "example.h"

typedef struct encoded { /* zero-initialise; buffers are reused; free with encoded_free */
    plumb_ids prompt, whole[2];
    uint8_t *assistant; /* [whole[0].count] 1 in an assistant's turn; meaningful when the example says assistant_only */
    size_t assistant_capacity;
    int32_t start; /* where the answers begin: ids before it are the same in the prompt and in every whole */
    bool merged;   /* start lies before the prompt's end */
    plumb_ids scratch;
    plumb_str piece;
} encoded;

plumb_status encode_example(encoded *c, const plumb_tokenizer *t, const example *e) PLUMB_CHECKED;
void encoded_free(encoded *c);
#endif
