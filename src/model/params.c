/* The parameter table: one entry per tensor, in the order of the forward pass.
 *
 * It is built from the architecture's row and sizes alone, so that every rank, the checkpoint and the planner get the
 * same table without reading a weight. */
#include "arch_table.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool has_bias(const plumb_arch *a, plumb_bias bias) {
    return (bias == PLUMB_BIAS_ATTENTION && a->attention_bias) || (bias == PLUMB_BIAS_MLP && a->mlp_bias);
}

static void add_one(plumb_params *p, const plumb_arch *a, const plumb_role_row *row, plumb_role role, int32_t layer,
                    bool bias) {
    plumb_param *item = &p->items[p->count++];
    const char *part = bias ? "bias" : "weight";
    if (row->flags & PLUMB_ROW_LAYER) {
        snprintf(item->name, sizeof item->name, "model.layers.%d.%s.%s", (int)layer, row->hf, part);
        snprintf(item->gguf, sizeof item->gguf, "blk.%d.%s.%s", (int)layer, row->gguf, part);
    } else {
        snprintf(item->name, sizeof item->name, "%s.%s", row->hf, part);
        snprintf(item->gguf, sizeof item->gguf, "%s.%s", row->gguf, part);
    }
    item->role = role;
    item->bias = bias;
    item->layer = layer;
    item->rows = bias ? 1 : plumb_axis_size(a, row->rows);
    item->cols = plumb_axis_size(a, bias ? row->rows : row->cols);
    item->decay = !bias && !(row->flags & PLUMB_ROW_NORM);
    item->linear = !bias && (row->flags & PLUMB_ROW_LINEAR);
}

static void add_role(plumb_params *p, const plumb_arch *a, const plumb_family *family, plumb_role role, int32_t layer) {
    const plumb_role_row *row = &family->roles[role];
    if (role == PLUMB_ROLE_HEAD && (a->tied || a->classifier)) return;
    add_one(p, a, row, role, layer, false);
    if (has_bias(a, row->bias)) add_one(p, a, row, role, layer, true);
}

plumb_status plumb_params_build(plumb_params *p, const plumb_arch *a) {
    *p = (plumb_params){0};
    const plumb_family *family = a->family ? plumb_family_by_name(a->family) : NULL;
    if (!family)
        return plumb_error(PLUMB_E_UNSUPPORTED, "no architecture is called '%s'", a->family ? a->family : "(none)");
    if (a->layers < 1 || a->layers > PLUMB_LAYER_LIMIT)
        return plumb_error(PLUMB_E_FORMAT, "a model of %lld layers, expected 1 to %d", (long long)a->layers,
                           PLUMB_LAYER_LIMIT);
    size_t most = (size_t)(2 * PLUMB_ROLE_COUNT) * (size_t)a->layers; /* every role of every layer with a bias */
    PLUMB_TRY(plumb_alloc(&p->items, most, sizeof *p->items, "the parameter table"));
    int role = 0; /* before, inside and after the layers, in the order of plumb_role */
    for (; role < PLUMB_ROLE_COUNT && !(family->roles[role].flags & PLUMB_ROW_LAYER); role++)
        add_role(p, a, family, (plumb_role)role, -1);
    for (int32_t layer = 0; layer < a->layers; layer++)
        for (int r = role; r < PLUMB_ROLE_COUNT && (family->roles[r].flags & PLUMB_ROW_LAYER); r++)
            add_role(p, a, family, (plumb_role)r, layer);
    for (; role < PLUMB_ROLE_COUNT; role++)
        if (!(family->roles[role].flags & PLUMB_ROW_LAYER)) add_role(p, a, family, (plumb_role)role, -1);
    return PLUMB_OK;
}

void plumb_params_free(plumb_params *p) {
    if (!p) return;
    free(p->items);
    *p = (plumb_params){0};
}

int plumb_params_find(const plumb_params *p, plumb_role role, int32_t layer, bool bias) {
    for (int i = 0; i < p->count; i++) {
        const plumb_param *item = &p->items[i];
        if (item->role == role && item->layer == layer && item->bias == bias) return i;
    }
    return -1;
}
