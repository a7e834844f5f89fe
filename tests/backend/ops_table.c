/* How each operation is described and run: forward above backward. The numbers of the arguments are the order in which
 * describe() adds them. */
#include "ops.h"
#include <stddef.h>

static bool has(const device *d, int i) {
    return d->x->args[i].present;
}

/* --- linear: y = sum_t diag(s_t) x_t w_t^T + bias --------------------------------------------- */
enum { LX = 0, LS = 3, LW = 6, LB = 9, LY, LDY, LDX, LDW = 15, LDB = 18 };
static void linear_describe(context *x) {
    static const char *const names[5][MAX_TERMS] = {
        {"x0", "x1", "x2"}, {"s0", "s1", "s2"}, {"w0", "w1", "w2"}, {"dx0", "dx1", "dx2"}, {"dw0", "dw1", "dw2"}};
    const op_case *c = x->c;
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[0][t], ROLE_INPUT, AXIS_TOKENS, 0, c->k_of[t], -1, t < c->terms);
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[1][t], ROLE_INPUT, AXIS_TOKENS, 0, 1, -1, t < c->terms && c->scaled);
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[2][t], ROLE_WEIGHT, AXIS_FIXED, c->n, c->k_of[t], -1, t < c->terms);
    x->args[LW + 1].storage = PLUMB_STORE_NATIVE; /* a mixture */
    add_arg(x, "bias", ROLE_INPUT, AXIS_FIXED, 1, c->n, -1, c->bias);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TOKENS, 0, c->n, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TOKENS, 0, c->n, LY, true);
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[3][t], ROLE_GRADIENT, AXIS_TOKENS, 0, c->k_of[t], LX + t, t < c->terms);
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[4][t], ROLE_GRADIENT_SUM, AXIS_FIXED, c->n, c->k_of[t], LW + t, t < c->terms);
    add_arg(x, "dbias", ROLE_GRADIENT_SUM, AXIS_FIXED, 1, c->n, LB, c->bias);
}
static void linear_forward(device *d) {
    plumb_term terms[MAX_TERMS];
    int n = (int)d->x->c->terms;
    for (int t = 0; t < n; t++) {
        plumb_operand *o = operand(d, t, d->x->T, d->x->c->k_of[t]);
        PLUMB_RUN(d->be, operand_pack, o, d->t[LX + t], PLUMB_BY_COLUMNS, d->t[LS + t]);
        terms[t] = (plumb_term){o, d->w[LW + t]};
    }
    PLUMB_RUN(d->be, linear_forward, &(plumb_product){d->t[LY], terms, n, d->t[LB]}, 1);
}
static void linear_backward(device *d) {
    plumb_operand *plain = operand(d, 3, d->x->T, d->x->c->n), *scaled = operand(d, 4, d->x->T, d->x->c->n);
    PLUMB_RUN(d->be, operand_pack, plain, d->t[LDY], PLUMB_BY_ROWS, absent());
    for (int t = 0; t < d->x->c->terms; t++) {
        PLUMB_RUN(d->be, operand_pack, scaled, d->t[LDY], PLUMB_BY_ROWS, d->t[LS + t]);
        plumb_term term = {scaled, d->w[LW + t]};
        PLUMB_RUN(d->be, linear_backward, d->t[LDX + t], &term, 1);
        PLUMB_RUN(d->be, linear_gradient, d->t[LDW + t], plain, d->operands[t]);
    }
    if (has(d, LDB)) PLUMB_RUN(d->be, bias_gradient, d->t[LDB], d->t[LDY]);
}
static double linear_flops(const context *x) {
    double sum = 0;
    for (int t = 0; t < x->c->terms; t++) sum += 2.0 * (double)(x->T * x->c->n * x->c->k_of[t]);
    return sum;
}

/* --- fan: several weights on one x, as q, k and v; their dx is one product of several terms --- */
enum { FX, FW, FY = 4, FDY = 7, FDX = 10 };
static void fan_describe(context *x) {
    static const char *const names[3][MAX_TERMS] = {{"w0", "w1", "w2"}, {"y0", "y1", "y2"}, {"dy0", "dy1", "dy2"}};
    const op_case *c = x->c;
    add_arg(x, "x", ROLE_INPUT, AXIS_TOKENS, 0, c->k, -1, true);
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[0][t], ROLE_WEIGHT, AXIS_FIXED, c->n_of[t], c->k, -1, t < c->terms);
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[1][t], ROLE_OUTPUT, AXIS_TOKENS, 0, c->n_of[t], -1, t < c->terms);
    for (int t = 0; t < MAX_TERMS; t++)
        add_arg(x, names[2][t], ROLE_COTANGENT, AXIS_TOKENS, 0, c->n_of[t], FY + t, t < c->terms);
    add_arg(x, "dx", ROLE_GRADIENT, AXIS_TOKENS, 0, c->k, FX, true);
}
static void fan_forward(device *d) {
    plumb_operand *o = operand(d, 0, d->x->T, d->x->c->k);
    PLUMB_RUN(d->be, operand_pack, o, d->t[FX], PLUMB_BY_COLUMNS, absent());
    plumb_term terms[MAX_TERMS];
    plumb_product products[MAX_TERMS];
    for (int t = 0; t < d->x->c->terms; t++) {
        terms[t] = (plumb_term){o, d->w[FW + t]};
        products[t] = (plumb_product){d->t[FY + t], &terms[t], 1, absent()};
    }
    PLUMB_RUN(d->be, linear_forward, products, (int)d->x->c->terms);
}
static void fan_backward(device *d) {
    plumb_term terms[MAX_TERMS];
    for (int t = 0; t < d->x->c->terms; t++) {
        terms[t] = (plumb_term){operand(d, 1 + t, d->x->T, d->x->c->n_of[t]), d->w[FW + t]};
        PLUMB_RUN(d->be, operand_pack, d->operands[1 + t], d->t[FDY + t], PLUMB_BY_ROWS, absent());
    }
    PLUMB_RUN(d->be, linear_backward, d->t[FDX], terms, (int)d->x->c->terms);
}

/* --- lora: y = x W^T + diag(s) (x A^T) B^T; db = diag(s) dy B stays packed -------------------- */
enum { AX, AW, AA, AB, AS, AXA, AY, ADY, ADX, ADA, ADB };
static void lora_describe(context *x) {
    const op_case *c = x->c;
    add_arg(x, "x", ROLE_INPUT, AXIS_TOKENS, 0, c->k, -1, true);
    add_arg(x, "w", ROLE_WEIGHT, AXIS_FIXED, c->n, c->k, -1, true);
    x->args[add_arg(x, "a", ROLE_WEIGHT, AXIS_FIXED, c->rank, c->k, -1, true)].storage = PLUMB_STORE_NATIVE;
    x->args[add_arg(x, "b", ROLE_WEIGHT, AXIS_FIXED, c->n, c->rank, -1, true)].storage = PLUMB_STORE_NATIVE;
    add_arg(x, "s", ROLE_INPUT, AXIS_TOKENS, 0, 1, -1, c->scaled);
    x->args[add_arg(x, "xa", ROLE_OUTPUT, AXIS_TOKENS, 0, c->rank, -1, true)].exact = true;
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TOKENS, 0, c->n, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TOKENS, 0, c->n, AY, true);
    add_arg(x, "dx", ROLE_GRADIENT, AXIS_TOKENS, 0, c->k, AX, true);
    add_arg(x, "da", ROLE_GRADIENT_SUM, AXIS_FIXED, c->rank, c->k, AA, true);
    add_arg(x, "db", ROLE_GRADIENT_SUM, AXIS_FIXED, c->n, c->rank, AB, true);
}
static void lora_forward(device *d) {
    const op_case *c = d->x->c;
    plumb_operand *px = operand(d, 0, d->x->T, c->k), *pxa = operand(d, 1, d->x->T, c->rank);
    plumb_term down = {px, d->w[AA]}, both[2] = {{px, d->w[AW]}, {pxa, d->w[AB]}};
    PLUMB_RUN(d->be, operand_pack, px, d->t[AX], PLUMB_BY_COLUMNS, absent());
    PLUMB_RUN(d->be, linear_forward, &(plumb_product){d->t[AXA], &down, 1, absent()}, 1);
    PLUMB_RUN(d->be, operand_pack, pxa, d->t[AXA], PLUMB_BY_COLUMNS, d->t[AS]);
    PLUMB_RUN(d->be, linear_forward, &(plumb_product){d->t[AY], both, 2, absent()}, 1);
}
static void lora_backward(device *d) {
    const op_case *c = d->x->c;
    plumb_operand *pdy = operand(d, 2, d->x->T, c->n), *pdb = operand(d, 3, d->x->T, c->rank);
    plumb_term up = {pdy, d->w[AB]}, both[2] = {{pdy, d->w[AW]}, {pdb, d->w[AA]}};
    PLUMB_RUN(d->be, operand_pack, pdy, d->t[ADY], PLUMB_BY_ROWS, absent());
    PLUMB_RUN(d->be, linear_backward_packed, pdb, &up, 1, d->t[AS]);
    PLUMB_RUN(d->be, linear_backward, d->t[ADX], both, 2);
    PLUMB_RUN(d->be, linear_gradient, d->t[ADA], pdb, d->operands[0]);
    PLUMB_RUN(d->be, linear_gradient, d->t[ADB], pdy, d->operands[1]);
}
static double lora_flops(const context *x) {
    return 2.0 * (double)(x->T * (x->c->n * x->c->k + x->c->rank * (x->c->n + x->c->k)));
}

/* --- embedding, gather ------------------------------------------------------------------------ */
enum { EW, EY, EDY, EDW };
static void embedding_describe(context *x) {
    add_arg(x, "w", ROLE_WEIGHT, AXIS_FIXED, x->c->V, x->c->k, -1, true);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TOKENS, 0, x->c->k, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TOKENS, 0, x->c->k, EY, true);
    add_arg(x, "dw", ROLE_GRADIENT_SUM, AXIS_FIXED, x->c->V, x->c->k, EW, true);
}
static void embedding_forward(device *d) {
    PLUMB_RUN(d->be, embedding_forward, d->t[EY], d->w[EW], d->batch);
}
static void embedding_backward(device *d) {
    PLUMB_RUN(d->be, embedding_backward, d->t[EDW], d->t[EDY], d->batch);
}

enum { GX, GY, GDY, GDX };
static void gather_describe(context *x) {
    add_arg(x, "x", ROLE_INPUT, AXIS_TOKENS, 0, x->c->k, -1, true);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TARGETS, 0, x->c->k, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TARGETS, 0, x->c->k, GY, true);
    x->args[add_arg(x, "dx", ROLE_GRADIENT_SUM, AXIS_TOKENS, 0, x->c->k, GX, true)].collects = true;
}
static void gather_forward(device *d) {
    PLUMB_RUN(d->be, gather_forward, d->t[GY], d->t[GX], d->batch);
}
static void gather_backward(device *d) {
    PLUMB_RUN(d->be, gather_backward, d->t[GDX], d->t[GDY], d->batch);
}

/* --- score: the scalar head */
enum { SCH, SCW, SCY, SCDY, SCDH, SCDW };
static void score_describe(context *x) {
    add_arg(x, "h", ROLE_INPUT, AXIS_TARGETS, 0, x->c->k, -1, true);
    add_arg(x, "w", ROLE_INPUT, AXIS_FIXED, 1, x->c->k, -1, true);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TARGETS, 0, 1, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TARGETS, 0, 1, SCY, true);
    add_arg(x, "dh", ROLE_GRADIENT_SUM, AXIS_TARGETS, 0, x->c->k, SCH, true);
    add_arg(x, "dw", ROLE_GRADIENT_SUM, AXIS_FIXED, 1, x->c->k, SCW, true);
}
static void score_forward(device *d) {
    PLUMB_RUN(d->be, score_forward, d->t[SCY], d->t[SCH], d->t[SCW]);
}
static void score_backward(device *d) {
    PLUMB_RUN(d->be, score_backward, d->t[SCDH], d->t[SCDW], d->t[SCDY], d->t[SCH], d->t[SCW]);
}

/* What an operation works on in place begins as another argument. */
static void begin_as(device *d, int to, int from) {
    PLUMB_RUN(d->be, zero, d->t[to]);
    PLUMB_RUN(d->be, add, d->t[to], d->t[to], d->t[from]);
}

/* --- rmsnorm ---------------------------------------------------------------------------------- */
enum { NX, NDELTA, NGAIN, NSUM, NRSTD, NY, NDY, NDX, NDGAIN };
static void rmsnorm_describe(context *x) {
    int64_t C = x->c->k;
    add_arg(x, "x", ROLE_INPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "delta", ROLE_INPUT, AXIS_TOKENS, 0, C, -1, x->c->delta);
    add_arg(x, "gain", ROLE_INPUT, AXIS_FIXED, 1, C, -1, true);
    add_arg(x, "sum", ROLE_OUTPUT, AXIS_TOKENS, 0, C, -1, x->c->delta);
    add_arg(x, "rstd", ROLE_OUTPUT, AXIS_TOKENS, 0, 1, -1, true);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TOKENS, 0, C, NY, true);
    add_arg(x, "dx", ROLE_GRADIENT_SUM, AXIS_TOKENS, 0, C, NX, true);
    add_arg(x, "dgain", ROLE_GRADIENT_SUM, AXIS_FIXED, 1, C, NGAIN, x->c->gain_gradient);
}
static void rmsnorm_forward(device *d) {
    PLUMB_RUN(d->be, rmsnorm_forward, d->t[NY], d->t[NX], d->t[NDELTA], d->t[NSUM], d->t[NGAIN], d->t[NRSTD], 1e-5);
}
static void rmsnorm_backward(device *d) {
    PLUMB_RUN(d->be, rmsnorm_backward, d->t[NDX], d->t[NDGAIN], d->t[NDY], d->t[d->x->c->delta ? NSUM : NX], d->t[NGAIN], d->t[NRSTD]);
}

/* --- rope ------------------------------------------------------------------------------------- */
enum { RX, RTABLE, RY, RDY, RDX };
static void rope_describe(context *x) {
    int64_t longest = 0, C = x->c->heads * x->c->head_dim;
    for (int64_t i = 0; i < x->T; i++) longest = plumb_max64(longest, x->forest.positions[i] + 1);
    add_arg(x, "x", ROLE_INPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "table", ROLE_INPUT, AXIS_FIXED, longest, x->c->head_dim, -1, true);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TOKENS, 0, C, RY, true);
    add_arg(x, "dx", ROLE_GRADIENT, AXIS_TOKENS, 0, C, RX, true);
}
static void rope_forward(device *d) {
    begin_as(d, RY, RX);
    PLUMB_RUN(d->be, rope_forward, d->t[RY], d->t[RTABLE], d->x->c->head_dim, d->batch);
}
static void rope_backward(device *d) {
    begin_as(d, RDX, RDY);
    PLUMB_RUN(d->be, rope_backward, d->t[RDX], d->t[RTABLE], d->x->c->head_dim, d->batch);
}

/* --- swiglu (with `alias` the gradients take the places of gate and up) ----------------------- */
enum { SG, SU, SH, SDH, SDG, SDU };
static void swiglu_describe(context *x) {
    int64_t C = x->c->k;
    x->args[add_arg(x, "gate", ROLE_INPUT, AXIS_TOKENS, 0, C, -1, true)].sigma = 3;
    add_arg(x, "up", ROLE_INPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "h", ROLE_OUTPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "dh", ROLE_COTANGENT, AXIS_TOKENS, 0, C, SH, true);
    add_arg(x, "dgate", ROLE_GRADIENT, AXIS_TOKENS, 0, C, SG, true);
    add_arg(x, "dup", ROLE_GRADIENT, AXIS_TOKENS, 0, C, SU, true);
}
static void swiglu_forward(device *d) {
    PLUMB_RUN(d->be, swiglu_forward, d->t[SH], d->t[SG], d->t[SU]);
}
static void swiglu_backward(device *d) {
    bool alias = d->x->c->alias;
    if (alias) {
        begin_as(d, SDG, SG);
        begin_as(d, SDU, SU);
    }
    PLUMB_RUN(d->be, swiglu_backward, d->t[SDG], d->t[SDU], d->t[SDH], d->t[alias ? SDG : SG], d->t[alias ? SDU : SU]);
}

/* --- add, scale_rows, zero -------------------------------------------------------------------- */
enum { PX, PZ, PS, PSUM, PY, PNOTHING, PDY, PDX };
static void pointwise_describe(context *x) {
    int64_t C = x->c->k;
    add_arg(x, "x", ROLE_INPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "z", ROLE_INPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "s", ROLE_INPUT, AXIS_TOKENS, 0, 1, -1, true);
    add_arg(x, "sum", ROLE_OUTPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "nothing", ROLE_OUTPUT, AXIS_TOKENS, 0, C, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TOKENS, 0, C, PY, true);
    add_arg(x, "dx", ROLE_GRADIENT, AXIS_TOKENS, 0, C, PX, true);
}
static void pointwise_forward(device *d) { /* y = s (x + z) */
    PLUMB_RUN(d->be, add, d->t[PSUM], d->t[PX], d->t[PZ]);
    if (d->x->c->alias) {
        begin_as(d, PY, PX);
        PLUMB_RUN(d->be, add, d->t[PY], d->t[PY], d->t[PZ]);
    }
    PLUMB_RUN(d->be, scale_rows, d->t[PY], d->t[d->x->c->alias ? PY : PSUM], d->t[PS]);
    PLUMB_RUN(d->be, zero, d->t[PNOTHING]);
}
static void pointwise_backward(device *d) {
    PLUMB_RUN(d->be, scale_rows, d->t[PDX], d->t[PDY], d->t[PS]);
}

/* --- dropout ---------------------------------------------------------------------------------- */
enum { DX, DBEFORE, DOUT, DDY, DDX };
static void dropout_describe(context *x) {
    add_arg(x, "x", ROLE_INPUT, AXIS_TOKENS, 0, x->c->k, -1, true);
    add_arg(x, "before", ROLE_INPUT, AXIS_TOKENS, 0, x->c->k, -1, true);
    add_arg(x, "y", ROLE_OUTPUT, AXIS_TOKENS, 0, x->c->k, -1, true);
    add_arg(x, "dy", ROLE_COTANGENT, AXIS_TOKENS, 0, x->c->k, DOUT, true);
    add_arg(x, "dx", ROLE_GRADIENT, AXIS_TOKENS, 0, x->c->k, DX, true);
}
static void drop(device *d, int to, int from, bool accumulate) {
    PLUMB_RUN(d->be, dropout, d->t[to], d->t[from], d->x->c->p, 0x123456789abcdefull, 17, 4000, accumulate, d->batch);
}
static void dropout_forward(device *d) {
    if (d->x->c->accumulate) begin_as(d, DOUT, DBEFORE);
    drop(d, DOUT, DX, d->x->c->accumulate);
}
static void dropout_backward(device *d) {
    drop(d, DDX, DDY, false);
}

/* --- attention -------------------------------------------------------------------------------- */
enum { TQ, TK, TV, TO, TLSE, TDO, TDQ, TDK, TDV };
static void attention_describe(context *x) {
    int64_t wide = x->c->heads * x->c->head_dim, width = x->c->kv_heads * x->c->head_dim;
    x->args[add_arg(x, "q", ROLE_INPUT, AXIS_TOKENS, 0, wide, -1, true)].sigma = 1.5;
    add_arg(x, "k", ROLE_INPUT, AXIS_TOKENS, 0, width, -1, true);
    add_arg(x, "v", ROLE_INPUT, AXIS_TOKENS, 0, width, -1, true);
    add_arg(x, "o", ROLE_OUTPUT, AXIS_TOKENS, 0, wide, -1, true);
    add_arg(x, "lse", ROLE_OUTPUT, AXIS_TOKENS, 0, x->c->heads, -1, true);
    add_arg(x, "do", ROLE_COTANGENT, AXIS_TOKENS, 0, wide, TO, true);
    add_arg(x, "dq", ROLE_GRADIENT, AXIS_TOKENS, 0, wide, TQ, true);
    x->args[add_arg(x, "dk", ROLE_GRADIENT, AXIS_TOKENS, 0, width, TK, true)].collects = true;
    x->args[add_arg(x, "dv", ROLE_GRADIENT, AXIS_TOKENS, 0, width, TV, true)].collects = true;
}
static void attention_forward(device *d) {
    PLUMB_RUN(d->be, attention_forward, &d->x->attention, d->t[TO], d->t[TLSE], d->t[TQ], d->t[TK], d->t[TV], d->kv,
              KV_LAYER, d->batch);
}
static void attention_backward(device *d) {
    PLUMB_RUN(d->be, attention_backward, &d->x->attention, d->t[TDQ], d->t[TDK], d->t[TDV], d->t[TDO], d->t[TO],
              d->t[TLSE], d->t[TQ], d->t[TK], d->t[TV], d->kv, d->batch);
}
static double attention_flops(const context *x) {
    double pairs = 0;
    for (int64_t i = 0; i < x->T; i++) pairs += x->forest.positions[i] + 1;
    return 4 * pairs * (double)(x->c->heads * x->c->head_dim);
}

/* --- LM head ---------------------------------------------------------------------------------- */
enum { HH, HW, HSTATS, HU, HE, HDLOGP, HDH, HDW };
static void head_describe(context *x) {
    int64_t C = x->c->k;
    add_arg(x, "h", ROLE_INPUT, AXIS_TARGETS, 0, C, -1, true);
    x->args[add_arg(x, "w", ROLE_WEIGHT, AXIS_FIXED, x->c->V, C, -1, true)].sigma = 0.25;
    x->args[add_arg(x, "stats", ROLE_OUTPUT, AXIS_TARGETS, 0, 4, -1, true)].exact = true;
    add_arg(x, "u", ROLE_OUTPUT, AXIS_TARGETS, 0, C, -1, !x->c->no_u);
    add_arg(x, "e", ROLE_OUTPUT, AXIS_TARGETS, 0, C, -1, !x->c->no_u);
    add_arg(x, "dlogp", ROLE_COTANGENT, AXIS_TARGETS, 0, 1, HSTATS, true);
    add_arg(x, "dh", ROLE_GRADIENT, AXIS_TARGETS, 0, C, HH, !x->c->no_u);
    add_arg(x, "dw", ROLE_GRADIENT_SUM, AXIS_FIXED, x->c->V, C, HW, true);
}
static void head_forward(device *d) {
    const op_case *c = d->x->c;
    PLUMB_RUN(d->be, head_forward, d->t[HSTATS], d->t[HU], d->t[HE], d->t[HH], d->w[HW], c->temperature, c->budget, d->batch);
}
static void head_backward(device *d) {
    const op_case *c = d->x->c;
    if (has(d, HU)) PLUMB_RUN(d->be, scale_rows, d->t[HDH], d->t[HU], d->t[HDLOGP]);
    PLUMB_RUN(d->be, head_backward, d->t[HDW], d->t[HDLOGP], d->t[HSTATS], d->t[HH], d->w[HW], c->temperature,
              c->budget, d->batch);
}
static double head_flops(const context *x) {
    return (x->c->no_u ? 2.0 : 4.0) * (double)(x->R * x->c->V * x->c->k);
}

/* Tolerances are fractions of the largest value that ref finds. fp32: sums of up to some thousand terms. bf16: the
 * values are representable, so products are as exact as in fp32 except where an operation rounds what it computed
 * itself (xa, db, probabilities, softmax). */
const operation operations[] = {
    {"linear", linear_describe, linear_forward, linear_backward, 2e-6, 8e-3, linear_flops},
    {"fan", fan_describe, fan_forward, fan_backward, 2e-6, 2e-6, NULL},
    {"lora", lora_describe, lora_forward, lora_backward, 3e-6, 1e-2, lora_flops},
    {"embedding", embedding_describe, embedding_forward, embedding_backward, 1e-6, 1e-6, NULL},
    {"gather", gather_describe, gather_forward, gather_backward, 1e-6, 1e-6, NULL},
    {"score", score_describe, score_forward, score_backward, 2e-6, 2e-6, NULL},
    {"rmsnorm", rmsnorm_describe, rmsnorm_forward, rmsnorm_backward, 2e-6, 2e-6, NULL},
    {"rope", rope_describe, rope_forward, rope_backward, 1e-6, 1e-6, NULL},
    {"swiglu", swiglu_describe, swiglu_forward, swiglu_backward, 2e-6, 2e-6, NULL},
    {"pointwise", pointwise_describe, pointwise_forward, pointwise_backward, 1e-6, 1e-6, NULL},
    {"dropout", dropout_describe, dropout_forward, dropout_backward, 1e-6, 1e-6, NULL},
    {"attention", attention_describe, attention_forward, attention_backward, 1e-5, 2e-2, attention_flops},
    {"head", head_describe, head_forward, head_backward, 5e-6, 1e-2, head_flops},
};
const int n_operations = sizeof operations / sizeof *operations;
