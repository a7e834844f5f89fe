/* What a file holds, from its first record: commands that take both kinds ask here. */
#include "plumb/data.h"
#include "records.h"
#include <stdlib.h>

plumb_status plumb_dataset_kind(const char *path, plumb_data_kind *kind) {
    char *text = NULL;
    size_t size = 0;
    records r = {0};
    json_t *first = NULL;
    PLUMB_TRY(plumb_read_file(path, &text, &size));
    plumb_status status = records_open(&r, path, text, size);
    if (status == PLUMB_OK && r.count == 0) status = plumb_error(PLUMB_E_DATA, "%s: no records", path);
    if (status == PLUMB_OK) status = records_parse(&r, 0, &first);
    if (status == PLUMB_OK)
        *kind =
            json_object_get(first, "chosen") && json_object_get(first, "rejected") ? PLUMB_DATA_PAIRS : PLUMB_DATA_SFT;
    json_decref(first);
    records_free(&r);
    free(text);
    return status;
}
