/* HDF5, thin and typed: arrays of one or two dimensions with names, and attributes of the root.
 *
 * A file is made in memory and comes out as bytes; a file is read from bytes. The library never sees a path. Three things follow: a full
 * disk is an error of the project's own atomic writer and not of HDF5's close, which is known to crash there; whoever keeps a checksum
 * can compare it before the library parses anything; no file locks are taken, which some network file systems lack. The price is that a
 * file is in memory as a whole.
 *
 * No types of variable length: texts are flat bytes with offsets. The same data give the same bytes (no times are stored).
 * Local. One thread at a time. `name` is used in messages only: they read "NAME: dataset \"/a/b\": …". */
#ifndef PLUMB_HDF5_H
#define PLUMB_HDF5_H
#include "plumb/base.h"

typedef struct plumb_hdf5 plumb_hdf5;
typedef enum plumb_hdf5_type {
    PLUMB_HDF5_U8,
    PLUMB_HDF5_I32,
    PLUMB_HDF5_I64,
    PLUMB_HDF5_U64,
    PLUMB_HDF5_F32,
    PLUMB_HDF5_F64
} plumb_hdf5_type;
size_t plumb_hdf5_size(plumb_hdf5_type t); /* bytes of an element */

/* --- writing ---------------------------------------------------------------------------------- */
plumb_status plumb_hdf5_create(plumb_hdf5 **f, const char *name) PLUMB_CHECKED;
/* Dataset `path` ("/group/name"; groups are made) of [rows] (columns 0) or [rows][columns] elements of `type` at `data`, stored little
 * endian as `stored`, shuffled and deflated. rows may be 0. */
plumb_status plumb_hdf5_write(plumb_hdf5 *f, const char *path, plumb_hdf5_type stored, const void *data, plumb_hdf5_type type, int64_t rows,
                              int64_t columns) PLUMB_CHECKED;
/* One part of a virtual dataset: all `rows` of a dataset of the same path in `file` (relative to the folder of the file that is made). */
typedef struct plumb_hdf5_source {
    const char *file;
    int64_t rows, columns; /* of the dataset there; columns 0: one dimension */
    const int *column_of;  /* [columns]: where each of its columns goes; not used for one dimension */
} plumb_hdf5_source;
/* Dataset `path` that lies in other files, one after another. Elements that no file has, a missing file's too, read as NaN or as the
 * type's largest value (-1 when signed). */
plumb_status plumb_hdf5_write_virtual(plumb_hdf5 *f, const char *path, plumb_hdf5_type stored, int64_t columns,
                                      const plumb_hdf5_source *sources, int64_t n_sources) PLUMB_CHECKED;
plumb_status plumb_hdf5_set_integer(plumb_hdf5 *f, const char *attribute, int64_t value) PLUMB_CHECKED;
/* `count` texts, each in `width` bytes with a NUL at its end; one text (count 0) is a scalar. */
plumb_status plumb_hdf5_set_texts(plumb_hdf5 *f, const char *attribute, const char *texts, size_t width, int64_t count) PLUMB_CHECKED;
/* The file as bytes, owned by the caller. */
plumb_status plumb_hdf5_image(plumb_hdf5 *f, uint8_t **bytes, size_t *size) PLUMB_CHECKED;

/* --- reading ---------------------------------------------------------------------------------- */
plumb_status plumb_hdf5_open(plumb_hdf5 **f, const void *bytes, size_t size, const char *name) PLUMB_CHECKED; /* copies the bytes */
/* PLUMB_E_FORMAT when the dataset is missing or has other than 1 (columns NULL) or 2 dimensions. */
plumb_status plumb_hdf5_shape(plumb_hdf5 *f, const char *path, int64_t *rows, int64_t *columns) PLUMB_CHECKED;
/* Rows [first, first + rows) as `type`. PLUMB_E_FORMAT when they are not there, when the columns differ (0: one dimension), or when
 * integers are asked for and reals are stored. */
plumb_status plumb_hdf5_read(plumb_hdf5 *f, const char *path, void *data, plumb_hdf5_type type, int64_t first, int64_t rows,
                             int64_t columns) PLUMB_CHECKED;
bool plumb_hdf5_has(plumb_hdf5 *f, const char *attribute);
plumb_status plumb_hdf5_get_integer(plumb_hdf5 *f, const char *attribute, int64_t *value) PLUMB_CHECKED;
/* At most `limit` texts of less than `width` bytes; *count: how many. */
plumb_status plumb_hdf5_get_texts(plumb_hdf5 *f, const char *attribute, char *texts, size_t width, int64_t limit,
                                  int64_t *count) PLUMB_CHECKED;

void plumb_hdf5_close(plumb_hdf5 *f); /* NULL is fine */
#endif
