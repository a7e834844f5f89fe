/* plumb inspect: what is in a weight file, from its headers alone, so that it takes no time whatever the size.
 *
 * The answer is first built as one JSON value and then either dumped (--json) or laid out as text: both say the same.
 * Files come from anywhere, so names and values are made printable before a terminal sees them. */
#include "cmd.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "plumb/io.h"

enum { FIRST_ITEMS = 8, TEXT_WIDTH = 60 };

static const char help[] = "usage: plumb inspect [--json] FILE|DIR\n"
                           "\n"
                           "Shows the metadata, tensors and totals of a weight file. Only headers are read.\n"
                           "\n"
                           "  FILE     a .safetensors file, an index (*.safetensors.index.json) or a .gguf file\n"
                           "  DIR      a Hugging Face model (config.json, model.safetensors or its index)\n"
                           "           or a PEFT adapter (adapter_config.json, adapter_model.safetensors),\n"
                           "           or a value head alone (value_head.safetensors)\n"
                           "  --json   print one JSON object instead of text\n"
                           "  --help   print this\n"
                           "\n"
                           "Exit status: 0 shown, 1 the file cannot be read or is damaged, 2 wrong usage.\n";

/* --- building the report ---------------------------------------------------------------------- */
static plumb_status no_memory(void) {
    return plumb_error(PLUMB_E_MEMORY, "out of memory while describing a file");
}

/* Bytes that are not UTF-8 become '?'. Steals nothing. */
static json_t *text_value(const char *bytes, size_t n) {
    json_t *value = json_stringn(bytes, n);
    if (value) return value;
    char *copy = malloc(n + 1);
    if (!copy) return NULL;
    for (size_t i = 0; i < n; i++) copy[i] = (unsigned char)bytes[i] < 0x80 ? bytes[i] : '?';
    value = json_stringn(copy, n);
    free(copy);
    return value;
}

/* Steals value; a NULL value is a failed allocation. */
static plumb_status put(json_t *object, const char *key, json_t *value) {
    json_t *clean = text_value(key, strlen(key));
    int result = -1;
    if (clean && value)
        result = json_object_set_new(object, json_string_value(clean), value);
    else
        json_decref(value);
    json_decref(clean);
    return result == 0 ? PLUMB_OK : no_memory();
}

static plumb_status append(json_t *array, json_t *value) {
    return value && json_array_append_new(array, value) == 0 ? PLUMB_OK : no_memory();
}

static json_t *real_value(double v) {
    if (isfinite(v)) return json_real(v);
    return json_string(isnan(v) ? "nan" : v > 0 ? "inf" : "-inf"); /* JSON has no such numbers */
}

static json_t *scalar_value(plumb_gguf_type type, const plumb_gguf_value *v) {
    switch (type) {
    case PLUMB_GGUF_STRING: return text_value(v->s.data, v->s.length);
    case PLUMB_GGUF_BOOL: return json_boolean(v->b);
    case PLUMB_GGUF_F32:
    case PLUMB_GGUF_F64: return real_value(v->f);
    case PLUMB_GGUF_U64: return v->u > INT64_MAX ? json_real(v->f) : json_integer(v->i);
    default: return json_integer(v->i);
    }
}

static json_t *array_item(const plumb_gguf_value *v, int64_t i) {
    static const uint8_t sizes[] = {
        [PLUMB_GGUF_U8] = 1,  [PLUMB_GGUF_I8] = 1,  [PLUMB_GGUF_U16] = 2, [PLUMB_GGUF_I16] = 2,
        [PLUMB_GGUF_U32] = 4, [PLUMB_GGUF_I32] = 4, [PLUMB_GGUF_F32] = 4, [PLUMB_GGUF_BOOL] = 1,
        [PLUMB_GGUF_U64] = 8, [PLUMB_GGUF_I64] = 8, [PLUMB_GGUF_F64] = 8};
    if (v->item == PLUMB_GGUF_STRING) return text_value(v->strings[i].data, v->strings[i].length);
    uint64_t bits = 0; /* little endian: the low bytes */
    memcpy(&bits, v->items + i * sizes[v->item], sizes[v->item]);
    float f;
    double d;
    memcpy(&f, &bits, sizeof f);
    memcpy(&d, &bits, sizeof d);
    switch (v->item) {
    case PLUMB_GGUF_F32: return real_value((double)f);
    case PLUMB_GGUF_F64: return real_value(d);
    case PLUMB_GGUF_BOOL: return json_boolean(bits != 0);
    case PLUMB_GGUF_I8: return json_integer((int8_t)bits);
    case PLUMB_GGUF_I16: return json_integer((int16_t)bits);
    case PLUMB_GGUF_I32: return json_integer((int32_t)bits);
    case PLUMB_GGUF_U64: return bits > INT64_MAX ? json_real((double)bits) : json_integer((int64_t)bits);
    default: return json_integer((int64_t)bits);
    }
}

static const char *gguf_type_name(plumb_gguf_type t) {
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return names[t];
}

/* {"type": "string", "count": 3, "first": […]} */
static plumb_status put_array(json_t *metadata, const plumb_gguf_value *v) {
    json_t *description = json_object(), *first = json_array();
    plumb_status status = put(metadata, v->key, description);
    if (status != PLUMB_OK) {
        json_decref(first);
        return status;
    }
    status = put(description, "type", json_string(gguf_type_name(v->item)));
    if (status == PLUMB_OK) status = put(description, "count", json_integer(v->count));
    for (int64_t i = 0; i < v->count && i < FIRST_ITEMS && status == PLUMB_OK; i++)
        status = append(first, array_item(v, i));
    if (status == PLUMB_OK) return put(description, "first", first);
    json_decref(first);
    return status;
}

/* layers.2 before layers.10 */
static int by_natural_name(const void *a, const void *b) {
    const char *x = (*(const plumb_file_tensor *const *)a)->name, *y = (*(const plumb_file_tensor *const *)b)->name;
    for (;;) {
        size_t n = strspn(x, "0123456789"), m = strspn(y, "0123456789");
        if (n && m) {
            if (n != m) return n < m ? -1 : 1; /* leading zeros do not occur */
            int order = memcmp(x, y, n);
            if (order) return order;
            x += n;
            y += n;
        } else {
            if (*x != *y || !*x) return (unsigned char)*x - (unsigned char)*y;
            x++;
            y++;
        }
    }
}

static plumb_status append_tensor(json_t *list, const plumb_file_tensor *t, int64_t *parameters) {
    json_t *row = json_object(), *shape = json_array();
    plumb_status status = append(list, row); /* the list owns the row from here on */
    if (status == PLUMB_OK) status = put(row, "name", text_value(t->name, strlen(t->name)));
    if (status == PLUMB_OK) status = put(row, "type", json_string(t->type_name));
    int64_t elements = 1; /* cannot overflow: opening the file has computed it */
    for (int d = 0; d < t->n_dims && status == PLUMB_OK; d++) {
        elements *= t->shape[d];
        status = append(shape, json_integer(t->shape[d]));
    }
    if (status != PLUMB_OK) {
        json_decref(shape);
        return status;
    }
    PLUMB_TRY(put(row, "shape", shape));
    *parameters += elements;
    return put(row, "bytes", json_integer((json_int_t)t->bytes));
}

static plumb_status put_tensors(json_t *report, const plumb_file_tensor *tensors, int64_t count) {
    const plumb_file_tensor **sorted;
    json_t *list = json_array(), *totals = json_object();
    int64_t parameters = 0, bytes = 0;
    plumb_status status = plumb_alloc(&sorted, (size_t)count, sizeof *sorted, "the list of tensors");
    if (status == PLUMB_OK && !list) status = no_memory();
    if (status != PLUMB_OK) goto done;
    for (int64_t i = 0; i < count; i++) sorted[i] = &tensors[i];
    qsort(sorted, (size_t)count, sizeof *sorted, by_natural_name);
    for (int64_t i = 0; i < count && status == PLUMB_OK; i++) {
        status = append_tensor(list, sorted[i], &parameters);
        bytes += (int64_t)sorted[i]->bytes;
    }
    if (status == PLUMB_OK) status = put(report, "tensors", json_incref(list));
    if (status == PLUMB_OK) status = put(report, "totals", json_incref(totals));
    if (status == PLUMB_OK) status = put(totals, "tensors", json_integer(count));
    if (status == PLUMB_OK) status = put(totals, "parameters", json_integer(parameters));
    if (status == PLUMB_OK) status = put(totals, "bytes", json_integer(bytes));
done:
    free(sorted);
    json_decref(list);
    json_decref(totals);
    return status;
}

static plumb_status describe_gguf(json_t *report, const char *path) {
    plumb_gguf g;
    PLUMB_TRY(plumb_gguf_open(&g, path));
    json_t *metadata = json_object();
    plumb_status status = put(report, "format", json_string("gguf"));
    if (status == PLUMB_OK) status = put(report, "version", json_integer(g.version));
    for (int64_t i = 0; i < g.n_values && status == PLUMB_OK; i++) {
        const plumb_gguf_value *v = &g.values[i];
        status = v->type == PLUMB_GGUF_ARRAY ? put_array(metadata, v) : put(metadata, v->key, scalar_value(v->type, v));
    }
    if (status == PLUMB_OK) status = put(report, "metadata", json_incref(metadata));
    if (status == PLUMB_OK) status = put_tensors(report, g.tensors, g.count);
    json_decref(metadata);
    plumb_gguf_close(&g);
    return status;
}

static plumb_status describe_safetensors(json_t *report, const char *path, const char *stem) {
    plumb_safetensors s;
    PLUMB_TRY(plumb_safetensors_open(&s, path, stem));
    plumb_status status = PLUMB_OK;
    if (!json_object_get(report, "format")) status = put(report, "format", json_string("safetensors"));
    if (status == PLUMB_OK) status = put(report, "files", json_integer(s.n_maps));
    if (status == PLUMB_OK && s.metadata) status = put(report, "metadata", json_incref(s.metadata));
    if (status == PLUMB_OK) status = put_tensors(report, s.tensors, s.count);
    plumb_safetensors_close(&s);
    return status;
}

static const char *const model_fields[] = {
    "architectures", "model_type",          "dtype",      "torch_dtype",
    "vocab_size",    "hidden_size",         "n_embd",     "intermediate_size",
    "n_inner",       "num_hidden_layers",   "n_layer",    "num_attention_heads",
    "n_head",        "num_key_value_heads", "head_dim",   "max_position_embeddings",
    "n_positions",   "sliding_window",      "rope_theta", "rope_parameters",
    "rope_scaling",  "tie_word_embeddings", NULL};
static const char *const adapter_fields[] = {
    "peft_type",    "task_type",      "base_model_name_or_path", "r",    "lora_alpha",
    "lora_dropout", "target_modules", "modules_to_save",         "bias", "use_rslora",
    "use_dora",     "rank_pattern",   "alpha_pattern",           NULL};

/* The fields that say what the model is; the file has many more. */
static plumb_status put_config(json_t *report, const char *path, const char *const *fields) {
    json_t *config, *shown = json_object();
    plumb_status status = plumb_json_load(&config, path);
    for (; *fields && status == PLUMB_OK; fields++) {
        json_t *value = json_object_get(config, *fields);
        if (value) status = put(shown, *fields, json_incref(value));
    }
    if (status == PLUMB_OK) status = put(report, "config", json_incref(shown));
    json_decref(shown);
    json_decref(config);
    return status;
}

static plumb_status describe_folder(json_t *report, const char *path) {
    char *adapter = NULL, *config = NULL, *head = NULL;
    plumb_status status = plumb_path_join(&adapter, path, "adapter_config.json");
    if (status == PLUMB_OK) status = plumb_path_join(&config, path, "config.json");
    if (status == PLUMB_OK) status = plumb_path_join(&head, path, "value_head.safetensors");
    if (status != PLUMB_OK) goto done;
    if (plumb_path_exists(adapter)) {
        status = put(report, "format", json_string("adapter"));
        if (status == PLUMB_OK) status = put_config(report, adapter, adapter_fields);
        if (status == PLUMB_OK) status = describe_safetensors(report, path, "adapter_model");
    } else if (plumb_path_exists(config)) {
        status = put(report, "format", json_string("model"));
        if (status == PLUMB_OK) status = put_config(report, config, model_fields);
        if (status == PLUMB_OK) status = describe_safetensors(report, path, NULL);
    } else if (plumb_path_exists(head)) {
        status = put(report, "format", json_string("value head"));
        if (status == PLUMB_OK) status = describe_safetensors(report, path, "value_head");
    } else {
        status = describe_safetensors(report, path, NULL);
        if (status != PLUMB_OK) plumb_error_prefix(status, "neither config.json nor adapter_config.json is there");
    }
done:
    free(adapter);
    free(config);
    free(head);
    return status;
}

/* --- text ------------------------------------------------------------------------------------- */
/* Printable: control characters (those of Latin-1 too) are escaped; cut after TEXT_WIDTH bytes, at a character. */
static void print_text(const char *s, size_t n, bool quoted) {
    if (quoted) putchar('"');
    size_t i = 0;
    for (; i < n && (i < TEXT_WIDTH || ((unsigned char)s[i] & 0xc0) == 0x80); i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '\n')
            fputs("\\n", stdout);
        else if (c < 0x20 || c == 0x7f)
            printf("\\x%02x", c);
        else if (c == 0xc2 && i + 1 < n && (unsigned char)s[i + 1] < 0xa0)
            printf("\\u00%02x", (unsigned char)s[++i]);
        else
            putchar(c);
    }
    if (i < n) printf("...");
    if (quoted) putchar('"');
    if (i < n) printf(" (%zu bytes)", n);
}

/* The shortest decimal that reads back as the same number; as the same float where it is one. */
static void print_real(double v) {
    char text[40];
    bool single = (double)(float)v == v, whole = v == trunc(v) && fabs(v) < 1e15;
    if (whole) printf("%.0f", v);
    if (whole) return;
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (single ? strtof(text, NULL) == (float)v : strtod(text, NULL) == v) break;
    }
    fputs(text, stdout);
}

static void print_scalar(json_t *v, bool quoted) {
    if (json_is_string(v))
        print_text(json_string_value(v), json_string_length(v), quoted);
    else if (json_is_integer(v))
        printf("%lld", (long long)json_integer_value(v));
    else if (json_is_real(v))
        print_real(json_real_value(v));
    else if (json_is_boolean(v))
        fputs(json_is_true(v) ? "true" : "false", stdout);
    else if (json_is_null(v))
        fputs("none", stdout);
    else
        fputs("...", stdout);
}

static void print_list(json_t *items, size_t count) {
    for (size_t i = 0; i < json_array_size(items) && i < FIRST_ITEMS; i++) {
        if (i) putchar(' ');
        print_scalar(json_array_get(items, i), true);
    }
    if (count > FIRST_ITEMS) printf(" ... (%zu)", count);
}

static void print_value(json_t *v) {
    json_t *first = json_object_get(v, "first"), *inner;
    const char *key;
    if (first) {
        size_t count = (size_t)json_integer_value(json_object_get(v, "count"));
        printf("%s[%zu] ", json_string_value(json_object_get(v, "type")), count);
        print_list(first, json_array_size(first));
        if (count > FIRST_ITEMS) printf(" ...");
    } else if (json_is_array(v)) {
        print_list(v, json_array_size(v));
    } else if (json_is_object(v)) {
        bool any = false;
        json_object_foreach(v, key, inner) {
            if (any) putchar(' ');
            print_text(key, strlen(key), false);
            putchar('=');
            print_scalar(inner, true);
            any = true;
        }
        if (!any) fputs("none", stdout);
    } else {
        print_scalar(v, false);
    }
}

static void print_section(json_t *report, const char *name) {
    json_t *section = json_object_get(report, name), *value;
    const char *key;
    int width = 0;
    if (json_object_size(section) == 0) return;
    printf("\n%s\n", name);
    json_object_foreach(section, key, value) if ((int)strlen(key) > width && strlen(key) <= TEXT_WIDTH) width =
        (int)strlen(key);
    json_object_foreach(section, key, value) {
        printf("  ");
        print_text(key, strlen(key), false);
        printf("%*s", width + 2 > (int)strlen(key) ? width + 2 - (int)strlen(key) : 2, "");
        print_value(value);
        putchar('\n');
    }
}

static void print_size(json_int_t bytes) {
    static const char *const units[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes;
    int unit = 0;
    while (size >= 1024 && unit < 4) size /= 1024, unit++;
    if (unit == 0)
        printf("%lld bytes", (long long)bytes);
    else
        printf("%lld bytes (%.1f %s)", (long long)bytes, size, units[unit]);
}

static void print_tensors(json_t *list) {
    size_t i, k;
    json_t *row, *size;
    int width = 4;
    if (json_array_size(list) == 0) return;
    json_array_foreach(list, i, row) {
        size_t n = json_string_length(json_object_get(row, "name"));
        if ((int)n > width && n <= 2 * TEXT_WIDTH) width = (int)n;
    }
    printf("\ntensors\n");
    json_array_foreach(list, i, row) {
        json_t *name = json_object_get(row, "name");
        char shape[128] = "scalar";
        size_t at = 0;
        json_array_foreach(json_object_get(row, "shape"), k, size) at += (size_t)snprintf(
            shape + at, sizeof shape - at, "%s%lld", k ? " x " : "", (long long)json_integer_value(size));
        printf("  ");
        const char *text = json_string_value(name);
        for (size_t n = json_string_length(name); n;) { /* names are shown whole */
            size_t part = n < TEXT_WIDTH ? n : TEXT_WIDTH;
            while (part < n && ((unsigned char)text[part] & 0xc0) == 0x80) part++;
            print_text(text, part, false);
            text += part;
            n -= part;
        }
        int rest = width - (int)json_string_length(name);
        printf("%*s  %-6s %-20s %lld\n", rest > 0 ? rest : 0, "", json_string_value(json_object_get(row, "type")),
               shape, (long long)json_integer_value(json_object_get(row, "bytes")));
    }
}

static void print_report(json_t *report) {
    json_t *totals = json_object_get(report, "totals"), *version = json_object_get(report, "version");
    json_int_t files = json_integer_value(json_object_get(report, "files"));
    const char *path = json_string_value(json_object_get(report, "path"));
    print_text(path, strlen(path), false);
    printf(": %s", json_string_value(json_object_get(report, "format")));
    if (version) printf(", version %lld", (long long)json_integer_value(version));
    if (files > 1) printf(", %lld files", (long long)files);
    putchar('\n');
    print_section(report, "config");
    print_section(report, "metadata");
    print_tensors(json_object_get(report, "tensors"));
    printf("\ntotals\n  %lld tensors, %lld parameters, ",
           (long long)json_integer_value(json_object_get(totals, "tensors")),
           (long long)json_integer_value(json_object_get(totals, "parameters")));
    print_size(json_integer_value(json_object_get(totals, "bytes")));
    putchar('\n');
}

static plumb_status inspect(const char *path, bool as_json) {
    json_t *report = json_object();
    if (!report) return no_memory();
    plumb_status status = put(report, "path", text_value(path, strlen(path)));
    if (status != PLUMB_OK) goto done;
    if (plumb_path_is_dir(path))
        status = describe_folder(report, path);
    else if (plumb_is_gguf(path))
        status = describe_gguf(report, path);
    else
        status = describe_safetensors(report, path, NULL);
    if (status != PLUMB_OK) goto done;
    if (!as_json)
        print_report(report);
    else if (json_dumpf(report, stdout, JSON_COMPACT) == 0)
        putchar('\n');
    if (fflush(stdout) != 0 || ferror(stdout)) status = plumb_error(PLUMB_E_IO, "cannot write the output: %m");
done:
    json_decref(report);
    return status;
}

int cmd_inspect(int argc, char **argv) {
    const char *path = NULL;
    bool as_json = false, options = true;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && strcmp(argv[i], "--json") == 0) {
            as_json = true;
        } else if (options && (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0)) {
            fputs(help, stdout);
            return 0;
        } else if ((options && argv[i][0] == '-') || path) {
            fprintf(stderr, "plumb inspect: %s \"%s\"; see plumb inspect --help\n",
                    path ? "one file at a time, found also" : "unknown option", argv[i]);
            return 2;
        } else {
            path = argv[i];
        }
    }
    if (!path) {
        fprintf(stderr, "plumb inspect: expected a file or a directory\n\n%s", help);
        return 2;
    }
    if (inspect(path, as_json) == PLUMB_OK) return 0;
    fprintf(stderr, "plumb inspect: %s\n", plumb_error_message());
    return 1;
}
