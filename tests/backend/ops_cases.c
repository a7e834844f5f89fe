/* The list of cases. Odd sizes on purpose: every tail of every loop is in here. */
#include "ops.h"
#include <stddef.h>

#define COUNT(a) (int)(sizeof(a) / sizeof *(a))
#define ONE(length)                                                                                                    \
    {                                                                                                                  \
        "one" #length, 1, (const shape[]) {                                                                            \
            { -1, length }                                                                                             \
        }                                                                                                              \
    }
static const forest_spec one1 = ONE(1), one2 = ONE(2), one63 = ONE(63), one64 = ONE(64), one65 = ONE(65),
                         one130 = ONE(130), one257 = ONE(257);
static const forest_spec nothing = {"nothing", 0, NULL}, many = {"many", 61, NULL};
static const shape pair_shapes[] = {{-1, 5}, {0, 3}, {0, 4}};
static const forest_spec pair = {"pair", COUNT(pair_shapes), pair_shapes};
/* three levels; children begin at positions 63, 64 and 65; a prompt with a group of children; empty segments */
static const shape tree_shapes[] = {{-1, 63}, {0, 1}, {0, 70}, {1, 2},   {2, 5},  {2, 64}, {-1, 64}, {6, 1},
                                    {6, 66},  {8, 3}, {7, 9},  {-1, 65}, {11, 2}, {11, 1}, {12, 7},  {12, 130}};
static const forest_spec tree = {"tree", COUNT(tree_shapes), tree_shapes};
static const shape group_shapes[] = {{-1, 70}, {0, 3}, {0, 17}, {0, 1},  {0, 0},
                                     {0, 60},  {4, 2}, {-1, 1}, {-1, 0}, {8, 4}};
static const forest_spec group = {"group", COUNT(group_shapes), group_shapes};
static const shape roots_shapes[] = {{-1, 13}, {-1, 64}, {-1, 1}, {-1, 90}, {-1, 0}, {-1, 33}, {-1, 5}};
static const forest_spec roots = {"roots", COUNT(roots_shapes), roots_shapes};
static const shape batch_shapes[] = {{-1, 120}, {0, 60}, {0, 70}};
static const forest_spec batch = {"batch", COUNT(batch_shapes), batch_shapes}; /* 250 rows, as in practice */
static const shape long_shapes[] = {{-1, 1000}};
static const forest_spec long1000 = {"long1000", COUNT(long_shapes), long_shapes};

#define LINEAR1(T_, n_, k_, ...)                                                                                       \
    { .op = "linear", .T = T_, .n = n_, .terms = 1, .k_of = {k_}, __VA_ARGS__ }
#define LORA(T_, n_, k_, r_, ...)                                                                                      \
    { .op = "lora", .T = T_, .n = n_, .k = k_, .rank = r_, __VA_ARGS__ }
#define NORM(T_, k_, ...)                                                                                              \
    { .op = "rmsnorm", .T = T_, .k = k_, __VA_ARGS__ }
#define ATTENTION(f, h, kv, d)                                                                                         \
    { .op = "attention", .forest = &f, .heads = h, .kv_heads = kv, .head_dim = d }
#define HEAD(f, t, v, k_, ...)                                                                                         \
    { .op = "head", .forest = &f, .targets = t, .V = v, .k = k_, __VA_ARGS__ }

/* Every product with quantised weights: whole and broken blocks along n and k, few rows and many, beside native terms */
#define QUANTISED(s)                                                                                                   \
    LINEAR1(1, 131, 48, .bias = true, .storage = s), LINEAR1(5, 1, 1, .storage = s),                                   \
        LINEAR1(33, 64, 32, .storage = s), LINEAR1(65, 97, 577, .bias = true, .storage = s),                           \
        LINEAR1(130, 33, 95, .scaled = true, .storage = s), LINEAR1(0, 48, 48, .storage = s),                          \
        {.op = "linear", .T = 34, .n = 330, .terms = 3, .k_of = {255, 16, 70}, .bias = true, .storage = s},            \
        {.op = "fan", .T = 34, .k = 70, .terms = 3, .n_of = {355, 256, 31}, .storage = s},                             \
        {.op = "fan", .T = 111, .k = 70, .terms = 3, .n_of = {355, 40, 31}, .storage = s},                             \
        {.op = "linear", .T = 101, .n = 330, .terms = 3, .k_of = {63, 16, 70}, .bias = true, .storage = s},            \
        LORA(130, 97, 70, 8, .scaled = true, .storage = s),                                                            \
        LINEAR1(1301, 33, 65, .storage = s), {.op = "linear", .T = 8, .n = 70, .terms = 2, .k_of = {70, 33}, .bias = true, .storage = s}, \
        LORA(34, 97, 190, 8, .scaled = true, .storage = s), LORA(1, 16, 48, 4, .storage = s),                          \
        {.op = "embedding", .forest = &tree, .V = 131, .k = 48, .storage = s},                                         \
        {.op = "embedding", .forest = &roots, .V = 33, .k = 17, .storage = s},                                         \
        HEAD(tree, TARGETS_SOME, 131, 48, .temperature = 1, .budget = 1 << 20, .storage = s),                          \
        HEAD(group, TARGETS_ALL, 513, 33, .temperature = 1.3, .budget = 4 * 513 * 40, .storage = s)

const op_case cases[] = {
    LINEAR1(47, 48, 48),
    LINEAR1(1301, 33, 65), /* more rows than a slice */
    LINEAR1(1, 131, 48, .bias = true),
    LINEAR1(2, 33, 31, .scaled = true),
    LINEAR1(5, 1, 1),
    LINEAR1(13, 32, 64),
    LINEAR1(14, 64, 32),
    LINEAR1(15, 16, 131, .bias = true),
    LINEAR1(64, 80, 33, .bias = true),
    LINEAR1(65, 4, 80),
    LINEAR1(130, 97, 7, .scaled = true),
    LINEAR1(29, 576, 192, .bias = true),
    LINEAR1(0, 48, 48, .bias = true),
    LINEAR1(3, 65, 1537),
    LINEAR1(47, 33, 600, .bias = true), /* sums are cut at multiples of 256 */
    LINEAR1(600, 9, 33),
    LINEAR1(65, 64, 256),
    {.op = "linear", .T = 34, .n = 70, .terms = 3, .k_of = {255, 513, 5}},
    {.op = "fan", .T = 34, .k = 70, .terms = 3, .n_of = {515, 256, 31}},
    LORA(34, 70, 520, 8, .scaled = true),
    {.op = "linear", .T = 47, .n = 65, .terms = 2, .k_of = {48, 4}, .bias = true, .scaled = true},
    {.op = "linear", .T = 33, .n = 48, .terms = 3, .k_of = {31, 80, 1}},
    {.op = "linear", .T = 9, .n = 131, .terms = 3, .k_of = {16, 16, 16}, .bias = true},
    {.op = "fan", .T = 47, .k = 48, .terms = 3, .n_of = {48, 16, 16}},
    {.op = "fan", .T = 7, .k = 80, .terms = 3, .n_of = {131, 33, 1}},
    {.op = "fan", .T = 16, .k = 5, .terms = 2, .n_of = {64, 3}},
    LORA(47, 48, 48, 1),
    LORA(47, 48, 80, 4, .scaled = true),
    LORA(33, 131, 48, 8),
    LORA(15, 80, 131, 16, .scaled = true),
    LORA(1, 16, 48, 4),
    LORA(20, 97, 577, 16, .scaled = true), /* several chunks; both ways of the forward product, with the next */
    LORA(110, 97, 577, 16, .scaled = true),
    {.op = "linear", .T = 18, .n = 33, .terms = 3, .k_of = {333, 16, 1}, .bias = true, .scaled = true},
    {.op = "linear", .T = 101, .n = 330, .terms = 3, .k_of = {333, 16, 1}, .bias = true},
    QUANTISED(PLUMB_STORE_INT8),
    QUANTISED(PLUMB_STORE_INT4),
    QUANTISED(PLUMB_STORE_W8A8),
    QUANTISED(PLUMB_STORE_W4A8),
    {.op = "embedding", .forest = &tree, .V = 131, .k = 48},
    {.op = "embedding", .forest = &many, .V = 131, .k = 80},
    {.op = "embedding", .forest = &one2, .V = 2, .k = 1},
    {.op = "embedding", .forest = &nothing, .V = 131, .k = 48},
    {.op = "embedding", .forest = &roots, .V = 33, .k = 17},
    {.op = "gather", .forest = &tree, .k = 48, .targets = TARGETS_ALL},
    {.op = "gather", .forest = &group, .k = 33, .targets = TARGETS_SOME},
    {.op = "gather", .forest = &one65, .k = 48, .targets = TARGETS_NONE},
    {.op = "gather", .forest = &roots, .k = 5, .targets = TARGETS_ALL},
    {.op = "score", .forest = &tree, .k = 48, .targets = TARGETS_ALL},
    {.op = "score", .forest = &group, .k = 33, .targets = TARGETS_SOME},
    {.op = "score", .forest = &one65, .k = 576, .targets = TARGETS_NONE},
    {.op = "score", .forest = &roots, .k = 5, .targets = TARGETS_ALL},
    NORM(47, 48, .gain_gradient = true),
    NORM(47, 80, .delta = true, .gain_gradient = true),
    NORM(34, 131, .delta = true),
    NORM(3, 1, .gain_gradient = true),
    NORM(5, 17),
    NORM(0, 48, .delta = true, .gain_gradient = true),
    NORM(2, 577, .delta = true, .gain_gradient = true),
    {.op = "rope", .forest = &tree, .heads = 6, .kv_heads = 2, .head_dim = 8},
    {.op = "rope", .forest = &many, .heads = 9, .kv_heads = 3, .head_dim = 64},
    {.op = "rope", .forest = &one65, .heads = 1, .kv_heads = 1, .head_dim = 2},
    {.op = "rope", .forest = &pair, .heads = 2, .kv_heads = 1, .head_dim = 80},
    {.op = "rope", .forest = &roots, .heads = 3, .kv_heads = 1, .head_dim = 16},
    {.op = "rope", .forest = &nothing, .heads = 3, .kv_heads = 1, .head_dim = 16},
    {.op = "swiglu", .T = 47, .k = 131},
    {.op = "swiglu", .T = 34, .k = 80, .alias = true},
    {.op = "swiglu", .T = 1, .k = 1},
    {.op = "swiglu", .T = 0, .k = 48},
    {.op = "pointwise", .T = 47, .k = 131},
    {.op = "pointwise", .T = 33, .k = 48, .alias = true},
    {.op = "pointwise", .T = 2, .k = 1},
    {.op = "pointwise", .T = 0, .k = 5},
    {.op = "dropout", .forest = &tree, .k = 48, .p = 0.1},
    {.op = "dropout", .forest = &many, .k = 131, .p = 0.5, .accumulate = true},
    {.op = "dropout", .forest = &roots, .k = 2, .p = 0.9},
    {.op = "dropout", .forest = &pair, .k = 16, .p = 0},
    {.op = "dropout", .forest = &nothing, .k = 16, .p = 0.5},
    ATTENTION(one1, 6, 2, 8),
    ATTENTION(one2, 6, 2, 8),
    ATTENTION(one63, 6, 2, 8),
    ATTENTION(one64, 9, 3, 64),
    ATTENTION(one65, 9, 3, 64),
    ATTENTION(one130, 4, 4, 16),
    ATTENTION(one257, 2, 1, 80),
    ATTENTION(pair, 9, 3, 64),
    ATTENTION(tree, 6, 2, 8),
    ATTENTION(tree, 3, 1, 16),
    ATTENTION(group, 9, 3, 64),
    ATTENTION(many, 6, 2, 8),
    ATTENTION(many, 2, 2, 80),
    ATTENTION(roots, 9, 3, 64),
    ATTENTION(nothing, 6, 2, 8),
    HEAD(tree, TARGETS_SOME, 131, 48, .temperature = 1, .budget = 1 << 20),
    HEAD(tree, TARGETS_ALL, 131, 48, .temperature = 1, .budget = 4 * 131 * 5, .no_u = true),
    HEAD(many, TARGETS_ALL, 131, 80, .temperature = 0.7, .budget = 4 * 131 * 16),
    HEAD(roots, TARGETS_ALL, 1031, 33, .temperature = 1.3, .budget = 1),
    HEAD(group, TARGETS_SOME, 513, 16, .temperature = 1, .budget = 50000),
    HEAD(pair, TARGETS_ALL, 2, 48, .temperature = 1, .budget = 1 << 20),
    HEAD(one65, TARGETS_NONE, 131, 48, .temperature = 1, .budget = 1 << 20),
    HEAD(one2, TARGETS_ALL, 512, 48, .temperature = 2, .budget = 1 << 20),
    /* sizes of practice */
    LINEAR1(256, 576, 576, .only_time = true),
    LINEAR1(256, 1536, 576, .only_time = true),
    LINEAR1(256, 576, 1536, .only_time = true),
    LINEAR1(32, 1536, 576, .only_time = true),
    LINEAR1(1, 1536, 576, .only_time = true),
    LORA(256, 576, 576, 16, .only_time = true),
    NORM(256, 576, .delta = true, .gain_gradient = true, .only_time = true),
    {.op = "swiglu", .T = 256, .k = 1536, .only_time = true},
    {.op = "rope", .forest = &batch, .heads = 9, .kv_heads = 3, .head_dim = 64, .only_time = true},
    {.op = "dropout", .forest = &batch, .k = 576, .p = 0.1, .only_time = true},
    {.op = "attention", .forest = &batch, .heads = 9, .kv_heads = 3, .head_dim = 64, .only_time = true},
    {.op = "attention", .forest = &long1000, .heads = 9, .kv_heads = 3, .head_dim = 64, .only_time = true},
    {.op = "head",
     .forest = &batch,
     .targets = TARGETS_SOME,
     .V = 49152,
     .k = 576,
     .temperature = 1,
     .budget = 8 << 20,
     .no_u = true,
     .only_time = true},
    {.op = "head",
     .forest = &batch,
     .targets = TARGETS_SOME,
     .V = 49152,
     .k = 576,
     .temperature = 1,
     .budget = 8 << 20,
     .only_time = true},
};
const int n_cases = COUNT(cases);
