/* What the files of checkpoint/ share: names inside a folder, the parsed manifest, verification. */
#ifndef PLUMB_CHECKPOINT_INTERNAL_H
#define PLUMB_CHECKPOINT_INTERNAL_H
#include "checkpoint.pb-c.h"
#include "plumb/checkpoint.h"
#include "plumb/io.h"

enum { CKPT_VERSION = 1 };
#define CKPT_MANIFEST "manifest.pb"

typedef struct ckpt_manifest { /* owns all; shards are grouped by array and sorted by first element */
    Plumb__Manifest *message;
    size_t *first_shard;   /* [n_arrays + 1] */
    Plumb__Shard **shards; /* [n_shards], borrowed from message */
} ckpt_manifest;

/* Packs a message into a new buffer, checksum last. */
plumb_status ckpt_manifest_pack(Plumb__Manifest *message, uint8_t **bytes, size_t *size) PLUMB_CHECKED;
/* Local. Reads and checks everything that the manifest alone can tell: checksum, version, names, ranges that cover each
 * array once. */
plumb_status ckpt_manifest_read(ckpt_manifest *m, const char *folder) PLUMB_CHECKED;
void ckpt_manifest_free(ckpt_manifest *m);
/* Checks names and that the shards of every array cover it exactly once; `where` is for messages. */
plumb_status ckpt_manifest_index(ckpt_manifest *m, const char *where) PLUMB_CHECKED;
size_t ckpt_manifest_find(const ckpt_manifest *m, const char *array); /* SIZE_MAX when absent */

/* Collective over the data axis: every shard of the folder is read once, by some rank, and compared with its checksum.
 */
plumb_status ckpt_verify_shards(const ckpt_manifest *m, const char *folder) PLUMB_CHECKED;
/* Local: the bytes of a shard, in a mapping that stays open until ckpt_files_close. */
typedef struct ckpt_file {
    const char *name;
    plumb_map map;
} ckpt_file; /* borrows the name from the manifest */
typedef struct ckpt_files {
    ckpt_file *items;
    size_t count, capacity;
} ckpt_files;
plumb_status ckpt_shard_bytes(ckpt_files *open, const char *folder, const ckpt_manifest *m, size_t array,
                              const Plumb__Shard *shard, const uint8_t **bytes, size_t *size) PLUMB_CHECKED;
void ckpt_files_close(ckpt_files *open);

/* --- folders ---------------------------------------------------------------------------------- */
plumb_status ckpt_folder_name(char **out, const char *dir, int64_t step, bool partial) PLUMB_CHECKED;
/* Steps of the folders step-N under dir, newest first; *steps owned by the caller. No such dir: none. */
plumb_status ckpt_list_steps(const char *dir, int64_t **steps, size_t *count) PLUMB_CHECKED;
plumb_status ckpt_remove_folder(const char *path) PLUMB_CHECKED; /* a folder of plain files; absent is fine */
plumb_status ckpt_sync_folder(const char *path) PLUMB_CHECKED;
/* Puts a finished folder in its place, atomically; what stood there is removed. */
plumb_status ckpt_replace_folder(const char *from, const char *to) PLUMB_CHECKED;
/* Removes what killed runs left under dir (.step-N.partial, .step-N.old). */
plumb_status ckpt_clean(const char *dir) PLUMB_CHECKED;
plumb_status ckpt_prune(const char *dir, int64_t saved, int keep) PLUMB_CHECKED;
#endif
