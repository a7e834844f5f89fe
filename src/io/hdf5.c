/* The only file that calls HDF5 (plumb/hdf5.h says why it works in memory).
 *
 * The library keeps a stack of errors for each thread and prints it by default. Here printing is off, and the innermost entry, which
 * says what was wrong, ends our message. Handles are integers, negative when something failed; every function opens what it needs and
 * closes it before it returns.
 *
 * The oldest file format that serves is used, as the library does by default: everything reads it, and it is the only one that comes out
 * whole. H5Fget_file_image clears the mark "open for writing" in the superblock, and newer superblocks have a checksum, which is not
 * corrected: HDF5 1.10.8 makes images that no program opens. Old headers have no checksums, hence ours, of the whole file. */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "io_internal.h"
#include "plumb/hdf5.h"

enum {
    CHUNK = 1 << 16,   /* elements of a chunk */
    SMALL = 256,       /* fewer elements are stored as they are */
    /* half the width of the trees that find chunks: by default each dataset has 2 KiB of them, twenty times what a small batch needs */
    INDEX = 4,
    GROWTH = 1 << 20,  /* bytes that a file in memory grows by */
    DEFLATE = 1,
    MESSAGE = 200
};

struct plumb_hdf5 {
    hid_t file;
    char *name;
};

size_t plumb_hdf5_size(plumb_hdf5_type t) {
    static const size_t sizes[] =
        {[PLUMB_HDF5_U8] = 1, [PLUMB_HDF5_I32] = 4, [PLUMB_HDF5_I64] = 8, [PLUMB_HDF5_U64] = 8, [PLUMB_HDF5_F32] = 4, [PLUMB_HDF5_F64] = 8};
    return sizes[t];
}

static hid_t type_in_memory(plumb_hdf5_type t) {
    switch (t) {
    case PLUMB_HDF5_U8: return H5T_NATIVE_UINT8;
    case PLUMB_HDF5_I32: return H5T_NATIVE_INT32;
    case PLUMB_HDF5_I64: return H5T_NATIVE_INT64;
    case PLUMB_HDF5_U64: return H5T_NATIVE_UINT64;
    case PLUMB_HDF5_F32: return H5T_NATIVE_FLOAT;
    default: return H5T_NATIVE_DOUBLE;
    }
}

static hid_t type_in_file(plumb_hdf5_type t) {
    switch (t) {
    case PLUMB_HDF5_U8: return H5T_STD_U8LE;
    case PLUMB_HDF5_I32: return H5T_STD_I32LE;
    case PLUMB_HDF5_I64: return H5T_STD_I64LE;
    case PLUMB_HDF5_U64: return H5T_STD_U64LE;
    case PLUMB_HDF5_F32: return H5T_IEEE_F32LE;
    default: return H5T_IEEE_F64LE;
    }
}

/* --- errors ----------------------------------------------------------------------------------- */
static herr_t innermost(unsigned n, const H5E_error2_t *entry, void *text) {
    if (n == 0 && entry->desc) strncat(text, entry->desc, MESSAGE - 1);
    return 0;
}

/* "NAME: dataset \"/a\": cannot read: the library's reason". */
static plumb_status fail(plumb_status code, const plumb_hdf5 *f, const char *kind, const char *object, const char *what) {
    char reason[MESSAGE] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, reason);
    H5Eclear2(H5E_DEFAULT);
    const char *colon = *reason ? ": HDF5: " : "";
    if (!object) return plumb_error(code, "%s: %s%s%s", f->name, what, colon, reason);
    return plumb_error(code, "%s: %s \"%s\": %s%s%s", f->name, kind, object, what, colon, reason);
}

/* --- files ------------------------------------------------------------------------------------ */
static plumb_status new_handle(plumb_hdf5 **f, const char *name) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL); /* no printing; for each thread, hence here */
    PLUMB_TRY(plumb_alloc(f, 1, sizeof **f, "an HDF5 file"));
    (*f)->file = H5I_INVALID_HID;
    plumb_status status = plumb_io_copy_text(&(*f)->name, name, strlen(name));
    if (status == PLUMB_OK) return PLUMB_OK;
    free(*f);
    *f = NULL;
    return status;
}

void plumb_hdf5_close(plumb_hdf5 *f) {
    if (!f) return;
    if (f->file >= 0) H5Fclose(f->file);
    free(f->name);
    free(f);
}

/* Properties of a file in memory that is never stored by the library. */
static hid_t in_memory(void) {
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access < 0 || H5Pset_fapl_core(access, GROWTH, 0) >= 0) return access;
    H5Pclose(access);
    return H5I_INVALID_HID;
}

/* The library takes files of one name for one file, and refuses an image with the name of a file on disk: each gets
 * a name that nothing on disk can have. */
static const char *unique_name(char name[64]) {
    static unsigned serial;
    snprintf(name, 64, "/dev/null/%u", __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED));
    return name;
}

/* Second half of create and open: closes `access`, and the handle when there is no file. */
static plumb_status finish_open(plumb_hdf5 **f, hid_t access, plumb_status code, const char *what) {
    plumb_status status = (*f)->file >= 0 ? PLUMB_OK : fail(code, *f, NULL, NULL, what);
    if (access >= 0) H5Pclose(access);
    if (status == PLUMB_OK) return PLUMB_OK;
    plumb_hdf5_close(*f);
    *f = NULL;
    return status;
}

plumb_status plumb_hdf5_create(plumb_hdf5 **f, const char *name) {
    char unique[64];
    PLUMB_TRY(new_handle(f, name));
    hid_t access = in_memory(), creation = H5Pcreate(H5P_FILE_CREATE);
    if (access >= 0 && creation >= 0 && H5Pset_istore_k(creation, INDEX) >= 0)
        (*f)->file = H5Fcreate(unique_name(unique), H5F_ACC_TRUNC, creation, access);
    plumb_status status = finish_open(f, access, PLUMB_E_MEMORY, "cannot make an HDF5 file in memory");
    if (creation >= 0) H5Pclose(creation);
    return status;
}

plumb_status plumb_hdf5_open(plumb_hdf5 **f, const void *bytes, size_t size, const char *name) {
    char unique[64];
    PLUMB_TRY(new_handle(f, name));
    hid_t access = size ? in_memory() : H5I_INVALID_HID; /* an image of no bytes means none to the library */
    if (access >= 0 && H5Pset_file_image(access, (void *)(uintptr_t)bytes, size) >= 0)
        (*f)->file = H5Fopen(unique_name(unique), H5F_ACC_RDONLY, access);
    return finish_open(f, access, PLUMB_E_FORMAT, size ? "not an HDF5 file, or a damaged one" : "empty, expected an HDF5 file");
}

plumb_status plumb_hdf5_image(plumb_hdf5 *f, uint8_t **bytes, size_t *size) {
    *bytes = NULL, *size = 0;
    ssize_t n = H5Fflush(f->file, H5F_SCOPE_GLOBAL) < 0 ? -1 : H5Fget_file_image(f->file, NULL, 0);
    if (n <= 0) return fail(PLUMB_E_MEMORY, f, NULL, NULL, "cannot finish the file in memory");
    PLUMB_TRY(plumb_alloc(bytes, (size_t)n, 1, "an HDF5 file"));
    if (H5Fget_file_image(f->file, *bytes, (size_t)n) != n) {
        free(*bytes);
        *bytes = NULL;
        return fail(PLUMB_E_MEMORY, f, NULL, NULL, "cannot finish the file in memory");
    }
    *size = (size_t)n;
    return PLUMB_OK;
}

/* --- writing ---------------------------------------------------------------------------------- */
/* A dataset with its groups; `creation` says how it is laid out. Negative on failure. */
static hid_t make_dataset(plumb_hdf5 *f, const char *path, plumb_hdf5_type stored, hid_t space, hid_t creation) {
    hid_t links = H5Pcreate(H5P_LINK_CREATE), dataset = H5I_INVALID_HID;
    if (links >= 0 && H5Pset_create_intermediate_group(links, 1) >= 0 && H5Pset_obj_track_times(creation, false) >= 0)
        dataset = H5Dcreate2(f->file, path, type_in_file(stored), space, links, creation, H5P_DEFAULT);
    if (links >= 0) H5Pclose(links);
    return dataset;
}

/* Chunks of whole rows. */
static bool set_layout(hid_t creation, const hsize_t *shape, int n_dims) {
    hsize_t width = n_dims == 2 ? shape[1] : 1, most = width < CHUNK ? CHUNK / width : 1;
    hsize_t chunk[2] = {shape[0] < most ? shape[0] : most, width};
    if (shape[0] * width < SMALL) return H5Pset_layout(creation, H5D_CONTIGUOUS) >= 0;
    return H5Pset_chunk(creation, n_dims, chunk) >= 0 && H5Pset_shuffle(creation) >= 0 && H5Pset_deflate(creation, DEFLATE) >= 0 &&
           H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) >= 0;
}

plumb_status plumb_hdf5_write(plumb_hdf5 *f, const char *path, plumb_hdf5_type stored, const void *data, plumb_hdf5_type type, int64_t rows,
                              int64_t columns) {
    PLUMB_CHECK(rows >= 0 && columns >= 0);
    hsize_t shape[2] = {(hsize_t)rows, (hsize_t)columns};
    int n_dims = columns ? 2 : 1;
    hid_t space = H5Screate_simple(n_dims, shape, NULL), creation = H5Pcreate(H5P_DATASET_CREATE), dataset = H5I_INVALID_HID;
    if (space >= 0 && creation >= 0 && set_layout(creation, shape, n_dims)) dataset = make_dataset(f, path, stored, space, creation);
    plumb_status status = PLUMB_OK;
    if (dataset < 0 || (rows && H5Dwrite(dataset, type_in_memory(type), H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0))
        status = fail(PLUMB_E_MEMORY, f, "dataset", path, "cannot write in memory");
    if (dataset >= 0) H5Dclose(dataset);
    if (creation >= 0) H5Pclose(creation);
    if (space >= 0) H5Sclose(space);
    return status;
}

/* What is seen where a file is missing: nothing that could be taken for data. */
static bool set_fill(hid_t creation, plumb_hdf5_type stored) {
    static const union { int64_t i; double d; } nothing[2] = {{.i = -1}, {.d = NAN}};
    bool real = stored == PLUMB_HDF5_F32 || stored == PLUMB_HDF5_F64;
    uint64_t all = UINT64_MAX;
    uint8_t byte = UINT8_MAX;
    if (stored == PLUMB_HDF5_U64) return H5Pset_fill_value(creation, H5T_NATIVE_UINT64, &all) >= 0;
    if (stored == PLUMB_HDF5_U8) return H5Pset_fill_value(creation, H5T_NATIVE_UINT8, &byte) >= 0;
    return H5Pset_fill_value(creation, real ? H5T_NATIVE_DOUBLE : H5T_NATIVE_INT64, &nothing[real]) >= 0;
}

static bool map_part(hid_t creation, const char *path, hid_t space, const plumb_hdf5_source *source, hsize_t first, bool wide) {
    hsize_t shape[2] = {(hsize_t)source->rows, (hsize_t)source->columns};
    hid_t there = H5Screate_simple(wide ? 2 : 1, shape, NULL);
    bool mapped = there >= 0;
    for (int64_t c = 0; mapped && c < (wide ? source->columns : 1); c++) { /* a column at a time: they may lie in another order there */
        hsize_t to[2] = {first, wide ? (hsize_t)source->column_of[c] : 0}, from[2] = {0, (hsize_t)c}, count[2] = {(hsize_t)source->rows, 1};
        mapped = H5Sselect_hyperslab(space, H5S_SELECT_SET, to, NULL, count, NULL) >= 0 &&
                 H5Sselect_hyperslab(there, H5S_SELECT_SET, from, NULL, count, NULL) >= 0 &&
                 H5Pset_virtual(creation, space, source->file, path, there) >= 0;
    }
    if (there >= 0) H5Sclose(there);
    return mapped;
}

plumb_status plumb_hdf5_write_virtual(plumb_hdf5 *f, const char *path, plumb_hdf5_type stored, int64_t columns,
                                      const plumb_hdf5_source *sources, int64_t n_sources) {
    hsize_t shape[2] = {0, (hsize_t)columns}, first = 0;
    for (int64_t i = 0; i < n_sources; i++) shape[0] += (hsize_t)sources[i].rows;
    if (shape[0] == 0) return plumb_hdf5_write(f, path, stored, NULL, stored, 0, columns);
    hid_t space = H5Screate_simple(columns ? 2 : 1, shape, NULL), creation = H5Pcreate(H5P_DATASET_CREATE), dataset = H5I_INVALID_HID;
    bool mapped = space >= 0 && creation >= 0 && set_fill(creation, stored);
    for (int64_t i = 0; i < n_sources && mapped; i++) {
        if (sources[i].rows) mapped = map_part(creation, path, space, &sources[i], first, columns > 0);
        first += (hsize_t)sources[i].rows;
    }
    if (mapped && H5Sselect_all(space) >= 0) dataset = make_dataset(f, path, stored, space, creation);
    plumb_status status = dataset >= 0 ? PLUMB_OK : fail(PLUMB_E_MEMORY, f, "virtual dataset", path, "cannot make it");
    if (dataset >= 0) H5Dclose(dataset);
    if (creation >= 0) H5Pclose(creation);
    if (space >= 0) H5Sclose(space);
    return status;
}

static plumb_status set_attribute(plumb_hdf5 *f, const char *name, hid_t stored, hid_t type, hid_t space, const void *value) {
    hid_t attribute = stored < 0 || space < 0 ? H5I_INVALID_HID : H5Acreate2(f->file, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    plumb_status status = PLUMB_OK;
    if (attribute < 0 || H5Awrite(attribute, type, value) < 0)
        status = fail(PLUMB_E_MEMORY, f, "attribute", name, "cannot write in memory");
    if (attribute >= 0) H5Aclose(attribute);
    if (space >= 0) H5Sclose(space);
    return status;
}

plumb_status plumb_hdf5_set_integer(plumb_hdf5 *f, const char *attribute, int64_t value) {
    return set_attribute(f, attribute, H5T_STD_I64LE, H5T_NATIVE_INT64, H5Screate(H5S_SCALAR), &value);
}

/* UTF-8 in `width` bytes, padded with NUL; negative on failure. */
static hid_t text_type(size_t width) {
    hid_t type = H5Tcopy(H5T_C_S1);
    if (type < 0 || (H5Tset_size(type, width) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0)) return type;
    H5Tclose(type);
    return H5I_INVALID_HID;
}

plumb_status plumb_hdf5_set_texts(plumb_hdf5 *f, const char *attribute, const char *texts, size_t width, int64_t count) {
    hsize_t n = (hsize_t)count;
    hid_t type = text_type(width);
    plumb_status status = set_attribute(f, attribute, type, type, count ? H5Screate_simple(1, &n, NULL) : H5Screate(H5S_SCALAR), texts);
    if (type >= 0) H5Tclose(type);
    return status;
}

/* --- reading ---------------------------------------------------------------------------------- */
/* Opens a dataset and its space of n_dims dimensions. On failure both are negative. */
static plumb_status open_dataset(plumb_hdf5 *f, const char *path, int n_dims, hid_t *dataset, hid_t *space, hsize_t shape[2]) {
    *space = H5I_INVALID_HID;
    *dataset = H5Dopen2(f->file, path, H5P_DEFAULT);
    if (*dataset < 0) return fail(PLUMB_E_FORMAT, f, "dataset", path, "cannot open");
    *space = H5Dget_space(*dataset);
    int found = *space < 0 ? -1 : H5Sget_simple_extent_ndims(*space);
    if (found == n_dims && H5Sget_simple_extent_dims(*space, shape, NULL) == n_dims && shape[0] <= INT64_MAX &&
        shape[n_dims - 1] <= INT64_MAX)
        return PLUMB_OK;
    plumb_status status = found < 0 || found == n_dims
                              ? fail(PLUMB_E_FORMAT, f, "dataset", path, "cannot read its shape")
                              : plumb_error(PLUMB_E_FORMAT, "%s: dataset \"%s\": %d dimensions, expected %d", f->name, path, found, n_dims);
    if (*space >= 0) H5Sclose(*space);
    H5Dclose(*dataset);
    *space = *dataset = H5I_INVALID_HID;
    return status;
}

plumb_status plumb_hdf5_shape(plumb_hdf5 *f, const char *path, int64_t *rows, int64_t *columns) {
    hid_t dataset, space;
    hsize_t shape[2] = {0};
    PLUMB_TRY(open_dataset(f, path, columns ? 2 : 1, &dataset, &space, shape));
    *rows = (int64_t)shape[0];
    if (columns) *columns = (int64_t)shape[1];
    H5Sclose(space);
    H5Dclose(dataset);
    return PLUMB_OK;
}

/* Reals may be read as reals, integers as integers; the library would convert anything to anything. */
static bool type_fits(hid_t dataset, plumb_hdf5_type wanted) {
    hid_t type = H5Dget_type(dataset);
    if (type < 0) return false;
    bool real = wanted == PLUMB_HDF5_F32 || wanted == PLUMB_HDF5_F64;
    bool fits = H5Tget_class(type) == (real ? H5T_FLOAT : H5T_INTEGER) && (real || H5Tget_size(type) <= plumb_hdf5_size(wanted));
    H5Tclose(type);
    return fits;
}

plumb_status plumb_hdf5_read(plumb_hdf5 *f, const char *path, void *data, plumb_hdf5_type type, int64_t first, int64_t rows,
                             int64_t columns) {
    hid_t dataset, space, here = H5I_INVALID_HID;
    hsize_t shape[2] = {0}, start[2] = {(hsize_t)first, 0}, count[2] = {(hsize_t)rows, (hsize_t)columns};
    int n_dims = columns ? 2 : 1;
    PLUMB_TRY(open_dataset(f, path, n_dims, &dataset, &space, shape));
    plumb_status status = PLUMB_OK;
    if (first < 0 || rows < 0 || rows > (int64_t)shape[0] || first > (int64_t)shape[0] - rows ||
        (columns && (int64_t)shape[1] != columns)) {
        status = plumb_error(PLUMB_E_FORMAT, "%s: dataset \"%s\": has %lld rows of %lld, expected rows %lld to %lld of %lld", f->name, path,
                             (long long)shape[0], (long long)(columns ? shape[1] : 1), (long long)first, (long long)(first + rows),
                             (long long)(columns ? columns : 1));
    } else if (!type_fits(dataset, type)) {
        status = plumb_error(PLUMB_E_FORMAT, "%s: dataset \"%s\": expected %s of at most %zu bytes", f->name, path,
                             type == PLUMB_HDF5_F32 || type == PLUMB_HDF5_F64 ? "reals" : "integers", plumb_hdf5_size(type));
    } else if (rows) {
        here = H5Screate_simple(n_dims, count, NULL);
        if (here < 0 || H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, count, NULL) < 0 ||
            H5Dread(dataset, type_in_memory(type), here, space, H5P_DEFAULT, data) < 0)
            status = fail(PLUMB_E_FORMAT, f, "dataset", path, "cannot read");
    }
    if (here >= 0) H5Sclose(here);
    H5Sclose(space);
    H5Dclose(dataset);
    return status;
}

bool plumb_hdf5_has(plumb_hdf5 *f, const char *attribute) {
    return H5Aexists(f->file, attribute) > 0;
}

plumb_status plumb_hdf5_get_integer(plumb_hdf5 *f, const char *attribute, int64_t *value) {
    hid_t a = H5Aopen(f->file, attribute, H5P_DEFAULT), type = a < 0 ? a : H5Aget_type(a), space = a < 0 ? a : H5Aget_space(a);
    plumb_status status = PLUMB_OK;
    if (type < 0 || space < 0 || H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1 ||
        H5Aread(a, H5T_NATIVE_INT64, value) < 0)
        status = fail(PLUMB_E_FORMAT, f, "attribute", attribute, "expected an integer");
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (a >= 0) H5Aclose(a);
    return status;
}

plumb_status plumb_hdf5_get_texts(plumb_hdf5 *f, const char *attribute, char *texts, size_t width, int64_t limit, int64_t *count) {
    hid_t a = H5Aopen(f->file, attribute, H5P_DEFAULT), type = a < 0 ? a : H5Aget_type(a), space = a < 0 ? a : H5Aget_space(a);
    hid_t wanted = text_type(width);
    plumb_status status = PLUMB_OK;
    hssize_t n = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    *count = 0;
    if (type < 0 || wanted < 0 || n < 0 || n > limit || H5Tget_class(type) != H5T_STRING || H5Tis_variable_str(type) > 0 ||
        H5Tget_size(type) > width || H5Aread(a, wanted, texts) < 0)
        status = fail(PLUMB_E_FORMAT, f, "attribute", attribute, "expected texts of a fixed length");
    else
        *count = (int64_t)n;
    for (int64_t i = 0; i < *count; i++) texts[(size_t)(i + 1) * width - 1] = 0;
    if (wanted >= 0) H5Tclose(wanted);
    if (space >= 0) H5Sclose(space);
    if (type >= 0) H5Tclose(type);
    if (a >= 0) H5Aclose(a);
    return status;
}
