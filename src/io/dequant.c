/* From storage to float: exact for every floating-point type up to float, and to the bit what ggml computes for its
 * blocks.
 *
 * A block holds 32 weights.  d and m are halves, q the small integers:
 *
 *     Q4_0  d | 16 bytes of nibbles                 w = d * (q - 8)
 *     Q4_1  d m | 16 bytes of nibbles               w = d * q + m
 *     Q5_0  d | 32 fifth bits | 16 bytes            w = d * (q - 16)
 *     Q5_1  d m | 32 fifth bits | 16 bytes          w = d * q + m
 *     Q8_0  d | 32 signed bytes                     w = d * q
 *
 * Low nibbles are weights 0..15, high nibbles 16..31.  Product and sum are rounded one after the other (contraction is
 * off in the whole build).  The loops have constant trip counts and no branches, which is what lets GCC vectorise them
 * at -O2; a model of 134 million weights is converted at every start. */
#include "io_internal.h"

#if defined(__GNUC__) && !defined(__clang__)
#define VECTORISED __attribute__((optimize("O3")))
#else
#define VECTORISED
#endif

typedef union bits {
    uint32_t u;
    float f;
} bits;

/* Half to float without branches, so that rows vectorise (plumb_f16_float is the readable form): moving the exponent is
 * an addition; a subnormal half counts in units of 2^-24, which is the last bit of a float in [0.5, 1), so that a
 * subtraction makes it exact. No step meets a subnormal float, which would cost a hundred cycles. */
static inline float half(uint16_t h) {
    uint32_t magnitude = h & 0x7fff;
    bits normal = {(magnitude << 13) + 0x38000000u}, small = {magnitude | 0x3f000000u};
    small.f -= 0.5f;
    uint32_t is_small = (magnitude - 0x400) >> 31, infinite = (magnitude + 0x400) >> 15; /* 0 or 1; infinite or NaN */
    bits x = {(small.u & -is_small) | (normal.u & (is_small - 1)) | infinite * 0x7f800000u |
              (uint32_t)(h & 0x8000) << 16};
    return x.f;
}

VECTORISED static void convert_f16(const uint8_t *in, int64_t count, float *restrict out) {
    for (int64_t i = 0; i < count; i++) out[i] = half(load_u16(in + 2 * i));
}

VECTORISED static void convert_bf16(const uint8_t *in, int64_t count, float *restrict out) {
    for (int64_t i = 0; i < count; i++) out[i] = plumb_bf16_float(load_u16(in + 2 * i));
}

VECTORISED static void convert_q4_0(const uint8_t *restrict p, int64_t blocks, float *restrict out) {
    for (; blocks > 0; blocks--, p += 18, out += 32) {
        float d = half(load_u16(p));
        for (int i = 0; i < 16; i++) out[i] = d * (float)((p[2 + i] & 15) - 8);
        for (int i = 0; i < 16; i++) out[16 + i] = d * (float)((p[2 + i] >> 4) - 8);
    }
}

VECTORISED static void convert_q4_1(const uint8_t *restrict p, int64_t blocks, float *restrict out) {
    for (; blocks > 0; blocks--, p += 20, out += 32) {
        float d = half(load_u16(p)), m = half(load_u16(p + 2));
        for (int i = 0; i < 16; i++) out[i] = d * (float)(p[4 + i] & 15) + m;
        for (int i = 0; i < 16; i++) out[16 + i] = d * (float)(p[4 + i] >> 4) + m;
    }
}

VECTORISED static void convert_q5_0(const uint8_t *restrict p, int64_t blocks, float *restrict out) {
    for (; blocks > 0; blocks--, p += 22, out += 32) {
        float d = half(load_u16(p));
        uint32_t fifth = load_u32(p + 2);
        for (int i = 0; i < 16; i++) out[i] = d * (float)((int)((p[6 + i] & 15) | (fifth >> i & 1) << 4) - 16);
        for (int i = 0; i < 16; i++)
            out[16 + i] = d * (float)((int)(p[6 + i] >> 4 | (fifth >> (16 + i) & 1) << 4) - 16);
    }
}

VECTORISED static void convert_q5_1(const uint8_t *restrict p, int64_t blocks, float *restrict out) {
    for (; blocks > 0; blocks--, p += 24, out += 32) {
        float d = half(load_u16(p)), m = half(load_u16(p + 2));
        uint32_t fifth = load_u32(p + 4);
        for (int i = 0; i < 16; i++) out[i] = d * (float)(int)((p[8 + i] & 15) | (fifth >> i & 1) << 4) + m;
        for (int i = 0; i < 16; i++) out[16 + i] = d * (float)(int)(p[8 + i] >> 4 | (fifth >> (16 + i) & 1) << 4) + m;
    }
}

VECTORISED static void convert_q8_0(const uint8_t *restrict p, int64_t blocks, float *restrict out) {
    for (; blocks > 0; blocks--, p += 34, out += 32) {
        float d = half(load_u16(p));
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)p[2 + i];
    }
}

static void convert_f64(const uint8_t *in, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) {
        double v;
        memcpy(&v, in + 8 * i, sizeof v);
        out[i] = (float)v;
    }
}

static void convert_integers(plumb_file_type type, const uint8_t *in, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i++) {
        if (type == PLUMB_FT_I64)
            out[i] = (float)(int64_t)load_u64(in + 8 * i);
        else if (type == PLUMB_FT_I32)
            out[i] = (float)(int32_t)load_u32(in + 4 * i);
        else if (type == PLUMB_FT_I16)
            out[i] = (float)(int16_t)load_u16(in + 2 * i);
        else if (type == PLUMB_FT_I8)
            out[i] = (float)(int8_t)in[i];
        else if (type == PLUMB_FT_U8)
            out[i] = (float)in[i];
        else
            out[i] = in[i] ? 1.0f : 0.0f; /* BOOL */
    }
}

plumb_status plumb_tensor_to_float(const plumb_file_tensor *t, int64_t first, int64_t count, float *out) {
    type_size size = plumb_io_type_size(t->type);
    if (!size.block)
        return plumb_error(
            PLUMB_E_UNSUPPORTED,
            "tensor \"%s\" is stored as %s, which cannot be read; supported are F32, F16, BF16, F64, I64, I32, I16, "
            "I8, U8, BOOL, Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0",
            t->name ? t->name : "?", t->type_name ? t->type_name : "an unknown type");
    int64_t total = (int64_t)(t->bytes / size.bytes) * size.block;
    if (first < 0 || count < 0 || first > total || count > total - first || first % size.block || count % size.block)
        return plumb_error(
            PLUMB_E_DATA, "tensor \"%s\": %lld elements from %lld on were asked for, of %lld in blocks of %lld",
            t->name ? t->name : "?", (long long)count, (long long)first, (long long)total, (long long)size.block);
    if (count == 0) return PLUMB_OK;
    int64_t blocks = count / size.block;
    const uint8_t *in = t->data + (size_t)(first / size.block) * size.bytes;
    switch (t->type) {
    case PLUMB_FT_F32: memcpy(out, in, (size_t)count * sizeof *out); break;
    case PLUMB_FT_F16: convert_f16(in, count, out); break;
    case PLUMB_FT_BF16: convert_bf16(in, count, out); break;
    case PLUMB_FT_F64: convert_f64(in, count, out); break;
    case PLUMB_FT_Q4_0: convert_q4_0(in, blocks, out); break;
    case PLUMB_FT_Q4_1: convert_q4_1(in, blocks, out); break;
    case PLUMB_FT_Q5_0: convert_q5_0(in, blocks, out); break;
    case PLUMB_FT_Q5_1: convert_q5_1(in, blocks, out); break;
    case PLUMB_FT_Q8_0: convert_q8_0(in, blocks, out); break;
    default: convert_integers(t->type, in, count, out); break;
    }
    return PLUMB_OK;
}
