/* gzip, inflated in one go.
 *
 * zlib's gzread is not used because it takes the end of the file for the end of the data: a download that broke off
 * would become a shorter data set without a word.  Here a stream must end with its checksum.  Members may follow one
 * another (that is what `cat a.gz b.gz` and parallel compressors write) and zero bytes may pad the end (tapes, some
 * object stores); anything else after the last member is an error.  The output is bounded, since one compressed byte
 * can stand for a thousand. */
#include "io_internal.h"
#include <zlib.h>

enum { ROOM = 1 << 16, AT_ONCE = 1 << 30 }; /* zlib counts in unsigned int */

static plumb_status refuse(const char *path, size_t at, const char *why) {
    return plumb_error(PLUMB_E_FORMAT, "%s: the compressed data is damaged near byte %zu: %s", path, at, why);
}

/* Behind a member: more members follow (true in *more), padding, or something that does not belong there. */
static plumb_status look_behind(const uint8_t *in, size_t size, size_t at, bool *more, const char *path) {
    *more = size - at >= 2 && in[at] == 0x1f && in[at + 1] == 0x8b;
    if (*more) return PLUMB_OK;
    for (size_t i = at; i < size; i++)
        if (in[i]) return refuse(path, i, "something other than gzip data follows the end of the stream");
    return PLUMB_OK;
}

static plumb_status inflate_members(plumb_str *out, z_stream *z, const uint8_t *in, size_t size, size_t limit,
                                    const char *path) {
    size_t at = 0;
    for (;;) {
        if (out->length > limit)
            return plumb_error(PLUMB_E_DATA, "%s: inflates to more than %zu bytes; no more are read into memory", path,
                               limit);
        if (out->capacity - out->length < ROOM)
            PLUMB_TRY(plumb_grow(&out->data, &out->capacity, out->length + ROOM, 1));
        size_t room = out->capacity - out->length - 1, left = size - at;
        uInt room_now = (uInt)(room < AT_ONCE ? room : AT_ONCE), left_now = (uInt)(left < AT_ONCE ? left : AT_ONCE);
        z->next_in = (z_const Bytef *)(uintptr_t)(in + at);
        z->avail_in = left_now;
        z->next_out = (Bytef *)out->data + out->length;
        z->avail_out = room_now;
        int result = inflate(z, Z_NO_FLUSH);
        size_t taken = left_now - z->avail_in, made = room_now - z->avail_out;
        at += taken;
        out->length += made;
        if (result == Z_STREAM_END) {
            bool more;
            PLUMB_TRY(look_behind(in, size, at, &more, path));
            if (!more) break;
            if (inflateReset(z) != Z_OK) return refuse(path, at, "the next part cannot be read");
        } else if (result == Z_MEM_ERROR) {
            return plumb_error(PLUMB_E_MEMORY, "%s: out of memory while inflating", path);
        } else if (result != Z_OK && result != Z_BUF_ERROR) {
            return refuse(path, at, z->msg ? z->msg : "not gzip data");
        } else if (!taken && !made) {
            return refuse(path, at, "it breaks off before its end (an incomplete download or copy?)");
        }
    }
    if (out->length > limit)
        return plumb_error(PLUMB_E_DATA, "%s: inflates to more than %zu bytes; no more are read into memory", path,
                           limit);
    out->data[out->length] = 0;
    return PLUMB_OK;
}

plumb_status plumb_io_inflate(plumb_str *out, const uint8_t *in, size_t size, size_t limit, const char *path) {
    z_stream z = {0};
    if (inflateInit2(&z, 15 + 16) != Z_OK) /* 16: gzip wrapping and nothing else */
        return plumb_error(PLUMB_E_MEMORY, "%s: out of memory while inflating", path);
    plumb_status status = inflate_members(out, &z, in, size, limit, path);
    inflateEnd(&z);
    return status;
}
