/* Agreement points: a local fault becomes the same status and the same message on every rank.
 *
 * One small gather when all is well; when not, one more message carries the text of the lowest failing rank. Where
 * every rank failed with the same text (a bad configuration, or a status that was agreed on before), the text is kept
 * as it is: there is no one rank to blame. */
#include <stdio.h>
#include <string.h>
#include "internal.h"

enum { MESSAGE = 1024 };

static uint64_t text_fingerprint(const char *text) {
    uint64_t h = 0;
    for (; *text; text++) h = comm_mix(h, (unsigned char)*text);
    return h;
}

typedef struct vote {
    int64_t status;
    uint64_t text;
} vote;

plumb_status plumb_comm_agree(plumb_axis axis, plumb_status local) {
    comm_axis *a = &comm.axes[axis];
    if (a->size == 1) return local;
    vote mine = {local, local == PLUMB_OK ? 0 : text_fingerprint(plumb_error_message())};
    comm_begin(a, "agree", 0);
    vote *votes = comm_scratch((size_t)a->size * sizeof *votes);
    comm_raw_gather(a, &mine, sizeof mine, votes);
    int lowest = -1, failed = 0;
    bool same = true;
    for (int r = 0; r < a->size; r++) {
        if (memcmp(&votes[r], &votes[0], sizeof *votes)) same = false;
        if (votes[r].status == PLUMB_OK) continue;
        if (lowest < 0) lowest = r;
        failed++;
    }
    if (lowest < 0) {
        comm_end();
        return PLUMB_OK;
    }
    plumb_status status = (plumb_status)votes[lowest].status;
    char text[MESSAGE] = "";
    if (!same) {
        if (a->rank == lowest)
            snprintf(text, sizeof text, "rank %d (%s): %s", a->rank, plumb_comm_host(), plumb_error_message());
        comm_raw_bcast(a, text, sizeof text, lowest);
    }
    comm_end();
    if (same) return status;
    text[sizeof text - 1] = 0;
    if (failed == 1) return plumb_error(status, "%s", text);
    return plumb_error(status, "%s (%d of %d ranks failed; this is the lowest)", text, failed, a->size);
}
