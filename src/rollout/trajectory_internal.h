/* What the files trajectory*.c share.
 *
 *   trajectory.c            a batch in memory, by one table of its arrays
 *   trajectory_file.c       batches <-> the bytes of one HDF5 file
 *   trajectory_manifest.c   the list of files with counts and checksums
 *   trajectory_master.c     the master file: virtual datasets over all listed files
 *   trajectory_reader.c     reading by the manifest
 *   trajectory_log.c        what changes a folder: commit, rewind, compact
 *   trajectory_rebuild.c    a manifest from the files alone */
#ifndef PLUMB_TRAJECTORY_INTERNAL_H
#define PLUMB_TRAJECTORY_INTERNAL_H
#include "plumb/hdf5.h"
#include "plumb/io.h"
#include "plumb/trajectory.h"

#define TRAJECTORY_MANIFEST "manifest.pb"
#define TRAJECTORY_MASTER "trajectories.h5"
enum { TRAJECTORY_FORMAT = 1, TRAJECTORY_MANIFEST_VERSION = 1, TRAJECTORY_NAME = 96 /* of a file, with its NUL */ };

/* --- arrays of a batch ------------------------------------------------------------------------ */
typedef enum trajectory_axis { TRAJECTORY_SEQUENCES, TRAJECTORY_PROMPTS, TRAJECTORY_TOKENS } trajectory_axis;
typedef struct trajectory_field {
    const char *dataset;
    size_t member;               /* offset of the pointer in plumb_trajectories */
    plumb_hdf5_type type, stored; /* in memory, on disk */
    trajectory_axis axis;
} trajectory_field;
enum { TRAJECTORY_FIELDS = 17 };
extern const trajectory_field trajectory_fields[TRAJECTORY_FIELDS]; /* all but offsets, parts and texts */

void *trajectory_array(const plumb_trajectories *t, const trajectory_field *f);
int64_t trajectory_length(const plumb_trajectories *t, trajectory_axis axis);
/* The batches one after another; iteration, policy version and parts are those of the first, and all have the same. */
plumb_status trajectory_join(plumb_trajectories *to, const plumb_trajectories *batches, int64_t n) PLUMB_CHECKED;
bool trajectory_same_parts(const plumb_trajectories *a, const plumb_trajectories *b);

/* --- one file --------------------------------------------------------------------------------- */
typedef struct trajectory_entry { /* what the manifest says of a file; owns its iterations */
    char name[TRAJECTORY_NAME];
    int64_t *iterations, n_iterations;
    int64_t sequences, tokens, prompt_tokens, prompt_text_bytes, text_bytes;
    uint64_t bytes, checksum;
    int64_t n_writers; /* of the iteration, as the file says; 0: a merged file, whose iterations are whole. Not in the manifest */
    int n_parts;
    char part_names[PLUMB_SCORE_PARTS][PLUMB_PART_NAME];
} trajectory_entry;
void trajectory_entry_free(trajectory_entry *e);
bool trajectory_has_iteration(const trajectory_entry *e, int64_t iteration);

/* Names of files: of one iteration and writer; merged; either of them. */
void trajectory_file_name(char name[TRAJECTORY_NAME], int64_t iteration, int writer);
void trajectory_merged_name(char name[TRAJECTORY_NAME], int64_t first, int64_t last);
bool trajectory_is_data(const char *name);

/* The bytes of a file of these batches, in ascending order of iteration and of the same parts; owned by the
 * caller. n_writers: of the iteration of a single batch; 0 for a merged file. `name` is for messages. */
plumb_status trajectory_encode(const plumb_trajectories *batches, int64_t n, int n_writers, const char *name, uint8_t **bytes,
                               size_t *size) PLUMB_CHECKED;
/* Are the bytes those that were written? PLUMB_E_FORMAT. `name` is for messages. */
plumb_status trajectory_check_seal(const char *name, const uint8_t *bytes, size_t size) PLUMB_CHECKED;
/* What lies in an open file (its name, bytes and checksum apart), from the shapes of its datasets and its iterations. */
plumb_status trajectory_describe(plumb_hdf5 *f, const char *name, trajectory_entry *e) PLUMB_CHECKED;
/* The sequences of one iteration. */
plumb_status trajectory_decode(plumb_hdf5 *f, const char *name, int64_t iteration, plumb_trajectories *out) PLUMB_CHECKED;

/* --- the manifest ----------------------------------------------------------------------------- */
typedef struct trajectory_manifest { /* entries in ascending order of iteration, then writer */
    trajectory_entry *entries;
    size_t count, capacity;
    uint64_t checksum; /* of the manifest that was read; 0: there was none */
} trajectory_manifest;
plumb_status trajectory_manifest_read(trajectory_manifest *m, const char *dir) PLUMB_CHECKED; /* none: no entries */
plumb_status trajectory_manifest_write(const trajectory_manifest *m, const char *dir) PLUMB_CHECKED;
plumb_status trajectory_manifest_add(trajectory_manifest *m, trajectory_entry *e) PLUMB_CHECKED; /* takes what *e owns, also on error */
const trajectory_entry *trajectory_manifest_find(const trajectory_manifest *m, const char *name); /* NULL when absent */
void trajectory_manifest_free(trajectory_manifest *m);

/* Rewrites DIR/trajectories.h5 for these entries; without entries it is removed. */
plumb_status trajectory_master_write(const trajectory_manifest *m, const char *dir) PLUMB_CHECKED;

/* Opens a file after comparing its size and checksum with its entry (PLUMB_E_FORMAT; PLUMB_E_IO when it is not there). */
plumb_status trajectory_open_listed(plumb_hdf5 **f, const char *dir, const trajectory_entry *e) PLUMB_CHECKED;
/* Reads a file that no manifest lists yet; fills *e, checksum included. */
plumb_status trajectory_open_new(plumb_hdf5 **f, const char *dir, const char *name, trajectory_entry *e) PLUMB_CHECKED;

/* plumb_trajectories_compact with another limit of tokens in one file. */
plumb_status trajectory_compact(const char *dir, int64_t token_limit) PLUMB_CHECKED;
#endif
