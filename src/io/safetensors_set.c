/* One or many safetensors files seen as one set of tensors.
 *
 * A large model comes as model-00001-of-00009.safetensors … with model.safetensors.index.json, whose weight_map says
 * which tensor is in which file.  The files' own headers are the truth about shapes and places; the index must agree
 * with them: every tensor it names is in the file it names.  File names in an index are relative to its folder and stay
 * below it. Tensors are kept in order of name, so that a look-up is a binary search. */
#include "safetensors_internal.h"
#include <stdio.h>
#include <stdlib.h>

void plumb_safetensors_close(plumb_safetensors *s) {
    for (int64_t i = 0; i < s->count; i++) free(s->tensors[i].name);
    for (int i = 0; i < s->n_maps; i++) plumb_map_close(&s->maps[i]);
    free(s->tensors);
    free(s->maps);
    free(s->path);
    json_decref(s->metadata);
    *s = (plumb_safetensors){0};
}

const plumb_file_tensor *plumb_safetensors_find(const plumb_safetensors *s, const char *name) {
    return plumb_io_find_tensor(s->tensors, s->count, name);
}

/* Relative, without "." or ".." or empty parts. A link may still lead elsewhere: that is how download caches are built.
 */
static bool stays_below(const char *name) {
    for (const char *part = name;; part++) {
        size_t n = strcspn(part, "/");
        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.')) return false;
        part += n;
        if (!*part) return true;
    }
}

/* The tensors from `first` on come from `file`: does the index agree?  *matched counts those it names. */
static plumb_status compare(const plumb_safetensors *s, int64_t first, json_t *weight_map, const char *file,
                            const char *index, size_t *matched) {
    for (int64_t i = first; i < s->count; i++) {
        const char *expected = json_string_value(json_object_get(weight_map, s->tensors[i].name));
        if (!expected) continue; /* in the file but not in the index: harmless, as for transformers */
        if (strcmp(expected, file) != 0)
            return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\" should be in %s, found in %s", index,
                               s->tensors[i].name, expected, file);
        ++*matched;
    }
    return PLUMB_OK;
}

static plumb_status add_named_file(safetensors_builder *b, json_t *weight_map, const char *file, const char *index,
                                   size_t *matched) {
    char *folder = NULL, *path = NULL;
    const char *slash = strrchr(index, '/');
    int64_t first = b->set->count;
    plumb_status status = plumb_io_copy_text(&folder, index, slash ? (size_t)(slash + 1 - index) : 0);
    if (status == PLUMB_OK) status = plumb_path_join(&path, folder, file);
    if (status == PLUMB_OK) status = plumb_io_safetensors_add(b, path);
    if (status == PLUMB_OK)
        status = compare(b->set, first, weight_map, file, index, matched);
    else
        status = plumb_error_prefix(status, "%s names %s", index, file);
    free(folder);
    free(path);
    return status;
}

/* Every file that the weight_map names, once each. */
static plumb_status add_files(safetensors_builder *b, json_t *weight_map, json_t *seen, const char *index) {
    const char *name;
    json_t *value;
    size_t matched = 0;
    json_object_foreach(weight_map, name, value) {
        const char *file = json_string_value(value);
        if (!file) return plumb_error(PLUMB_E_FORMAT, "%s: weight_map: \"%s\": expected a file name", index, name);
        if (!stays_below(file))
            return plumb_error(
                PLUMB_E_FORMAT,
                "%s: weight_map: \"%s\" is placed in \"%s\"; expected a file in the same folder or below it", index,
                name, file);
        if (json_object_get(seen, file)) continue;
        if (json_object_set_new(seen, file, json_true()) != 0)
            return plumb_error(PLUMB_E_MEMORY, "%s: out of memory", index);
        PLUMB_TRY(add_named_file(b, weight_map, file, index, &matched));
    }
    if (matched == json_object_size(weight_map)) return PLUMB_OK;
    PLUMB_TRY(plumb_io_sort_tensors(b->set->tensors, b->set->count, index));
    json_object_foreach(weight_map, name, value) {
        if (!plumb_safetensors_find(b->set, name))
            return plumb_error(PLUMB_E_FORMAT, "%s: tensor \"%s\" is not in %s", index, name, json_string_value(value));
    }
    return PLUMB_OK;
}

static plumb_status open_index(safetensors_builder *b, const char *path) {
    json_t *index, *seen = NULL;
    PLUMB_TRY(plumb_json_load(&index, path));
    plumb_status status;
    json_t *weight_map = json_object_get(index, "weight_map");
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0) {
        status = plumb_error(PLUMB_E_FORMAT, "%s: expected \"weight_map\": an object from tensor names to files", path);
        goto done;
    }
    seen = json_object();
    status = seen ? add_files(b, weight_map, seen, path) : plumb_error(PLUMB_E_MEMORY, "%s: out of memory", path);
done:
    json_decref(seen);
    json_decref(index);
    return status;
}

static plumb_status find_in_folder(char **found, const char *folder, const char *stem) {
    static const char *const endings[] = {".safetensors", ".safetensors.index.json"};
    for (int i = 0; i < 2; i++) {
        plumb_str name = {0};
        plumb_status status = plumb_str_printf(&name, "%s%s", stem, endings[i]);
        if (status == PLUMB_OK) status = plumb_path_join(found, folder, name.data);
        plumb_str_free(&name);
        PLUMB_TRY(status);
        if (plumb_path_exists(*found)) return PLUMB_OK;
        free(*found);
        *found = NULL;
    }
    return plumb_error(
        PLUMB_E_IO,
        "%s: holds neither %s.safetensors nor %s.safetensors.index.json (weights as .bin or .pt are pickles and are "
        "not read: save them with safetensors)",
        folder, stem, stem);
}

plumb_status plumb_safetensors_open(plumb_safetensors *s, const char *path, const char *stem) {
    *s = (plumb_safetensors){0};
    safetensors_builder b = {.set = s};
    plumb_status status = plumb_path_is_dir(path) ? find_in_folder(&s->path, path, stem ? stem : "model")
                                                  : plumb_io_copy_text(&s->path, path, strlen(path));
    if (status == PLUMB_OK) {
        size_t n = strlen(s->path);
        bool index = n >= 5 && strcmp(s->path + n - 5, ".json") == 0;
        status = index ? open_index(&b, s->path) : plumb_io_safetensors_add(&b, s->path);
    }
    if (status == PLUMB_OK) status = plumb_io_sort_tensors(s->tensors, s->count, s->path);
    if (status != PLUMB_OK) plumb_safetensors_close(s);
    return status;
}
