// Decodes weights as model files store them, 32 at a time, and rounds them to f16 and back.
//
// A row of a tensor is a run of blocks, and a type may keep the fields of a block in several
// planes, each with the blocks of all rows. StorageType in artifacts/checkpoint.py has the table of
// types: blocks, planes, bits, zero.

#pragma once
#include "simd.h"

// Types whose blocks are decoded alike have one name here: the first of them, `unpacked_as`.
enum {
    TYPE_F32 = 0, TYPE_F16 = 1, TYPE_Q4_0 = 2, TYPE_Q4_1 = 3, TYPE_Q5_0 = 6, TYPE_Q5_1 = 7,
    TYPE_Q8_0 = 8, TYPE_Q2_K = 10, TYPE_Q3_K = 11, TYPE_Q4_K = 12, TYPE_Q5_K = 13, TYPE_Q6_K = 14,
    TYPE_IQ4_NL = 20, TYPE_IQ4_XS = 23, TYPE_BF16 = 30, TYPE_GROUP4 = 1000, TYPE_AFFINE4 = 1010,
};

#define MAX_PLANES 3
#define LARGEST_F16 65504.0f

typedef struct {  // a `Storage` in checkpoint.py
    uint32_t type, block_elements, block_bytes[MAX_PLANES], zero, is_bf16;
    uint32_t quantized;  // of floats: TYPE_Q4_0 or TYPE_Q8_0, and `zero` is its; or 0
} Storage;

typedef struct {
    const uint8_t *planes[MAX_PLANES];
} Row;

// ----------------------------------------------------------------------------- single numbers

INLINE float float_of(uint32_t bits) {
    float a;
    memcpy(&a, &bits, 4);
    return a;
}
INLINE uint32_t bits_of(float a) {
    uint32_t bits;
    memcpy(&bits, &a, 4);
    return bits;
}
INLINE uint16_t load_u16(const void *p) {
    uint16_t a;
    memcpy(&a, p, 2);
    return a;
}
INLINE float bf16_to_float(uint16_t a) { return float_of((uint32_t)a << 16); }

INLINE float f16_to_float(uint16_t a) {
    uint32_t sign = (uint32_t)(a & 0x8000) << 16, rest = (uint32_t)(a & 0x7fff) << 13;
    if ((a & 0x7c00) == 0x7c00) return float_of(sign | rest | 0x7f800000);
    return float_of(sign | bits_of(float_of(rest) * 0x1p112f));
}

INLINE uint16_t f16_from_float(float a) {  // to nearest even; saturates at the largest f16
    uint32_t sign = bits_of(a) >> 16 & 0x8000;
    float size = float_of(bits_of(a) & 0x7fffffff);
    if (!(size < 65520.0f)) return (uint16_t)(sign | 0x7bff);
    if (size < 0x1p-14f) return (uint16_t)(sign | (bits_of(size + 0.5f) - bits_of(0.5f)));
    uint32_t bits = bits_of(size);
    return (uint16_t)(sign | ((bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13));
}

// --------------------------------------------------------------------------------- 32 weights

typedef struct {  // scale[i / 16] * q[i] + minimum[i / 16]
    int8_t q[32];
    float scale[2], minimum[2];
    int is_out_of_range;  // a scale or minimum that f16 cannot hold
} Group;

INLINE void set_scales(Group *g, float scale, float minimum) {
    g->scale[0] = g->scale[1] = scale;
    g->minimum[0] = g->minimum[1] = minimum;
}

// Below, q[i] is what the file stores; decode_group subtracts the type's zero.

#define NIBBLES 0x0f0f0f0f0f0f0f0full

INLINE void nibbles(int8_t *q, const uint8_t *bytes) {
    for (int i = 0; i < 16; i += 8) {
        uint64_t both, low, high;
        memcpy(&both, bytes + i, 8);
        low = both & NIBBLES;
        high = both >> 4 & NIBBLES;
        memcpy(q + i, &low, 8);
        memcpy(q + 16 + i, &high, 8);
    }
}

INLINE void nibbles5(int8_t *q, const uint8_t *high, const uint8_t *bytes) {
    uint32_t bits;
    memcpy(&bits, high, 4);
    nibbles(q, bytes);
    for (int i = 0; i < 32; i++) q[i] = (int8_t)(q[i] | (int)(bits >> i & 1) << 4);
}

// Reads the 6-bit scale and minimum of group `g` of 8; Q4_K and Q5_K pack them into 12 bytes.
INLINE void k_scales(Group *group, const uint8_t *block, int g) {
    const uint8_t *s = block + 4;
    int scale, minimum;
    if (g < 4) {
        scale = s[g] & 63;
        minimum = s[g + 4] & 63;
    } else {
        scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
        minimum = (s[g + 4] >> 4) | (s[g] >> 6) << 4;
    }
    set_scales(group, f16_to_float(load_u16(block)) * (float)scale,
               -(f16_to_float(load_u16(block + 2)) * (float)minimum));
}

static void decode_q2_k(Group *group, const uint8_t *block, int g) {
    const uint8_t *q = block + 16 + g / 4 * 32;
    float scale = f16_to_float(load_u16(block + 80)), minimum = f16_to_float(load_u16(block + 82));
    for (int i = 0; i < 32; i++) group->q[i] = (int8_t)(q[i] >> g % 4 * 2 & 3);
    for (int h = 0; h < 2; h++) {
        group->scale[h] = scale * (float)(block[2 * g + h] & 15);
        group->minimum[h] = -(minimum * (float)(block[2 * g + h] >> 4));
    }
}

static void decode_q3_k(Group *group, const uint8_t *block, int g) {
    const uint8_t *q = block + 32 + g / 4 * 32, *s = block + 96;
    float scale = f16_to_float(load_u16(block + 108));
    for (int i = 0; i < 32; i++) {
        group->q[i] = (int8_t)((q[i] >> g % 4 * 2 & 3) | (block[i] >> g & 1) << 2);
    }
    for (int h = 0; h < 2; h++) {
        int k = 2 * g + h;
        int low = k < 8 ? s[k] & 15 : s[k - 8] >> 4;
        group->scale[h] = scale * (float)((low | (s[8 + k % 4] >> k / 4 * 2 & 3) << 4) - 32);
        group->minimum[h] = 0.0f;
    }
}

static void decode_q4_k(Group *group, const uint8_t *block, int g) {
    const uint8_t *q = block + 16 + g / 2 * 32;
    k_scales(group, block, g);
    for (int i = 0; i < 32; i++) group->q[i] = (int8_t)(q[i] >> g % 2 * 4 & 15);
}

static void decode_q5_k(Group *group, const uint8_t *block, int g) {
    const uint8_t *high = block + 16, *q = block + 48 + g / 2 * 32;
    k_scales(group, block, g);
    for (int i = 0; i < 32; i++) {
        group->q[i] = (int8_t)((q[i] >> g % 2 * 4 & 15) | (high[i] >> g & 1) << 4);
    }
}

static void decode_q6_k(Group *group, const uint8_t *block, int g) {
    int half = g / 4, k = g % 4;
    const uint8_t *low = block + half * 64 + k % 2 * 32, *high = block + 128 + half * 32;
    float scale = f16_to_float(load_u16(block + 208));
    for (int i = 0; i < 32; i++) {
        group->q[i] = (int8_t)((low[i] >> k / 2 * 4 & 15) | (high[i] >> 2 * k & 3) << 4);
    }
    for (int h = 0; h < 2; h++) {
        group->scale[h] = scale * (float)(int8_t)block[192 + 2 * g + h];
        group->minimum[h] = 0.0f;
    }
}

// Sixteen values for four bits, from ggml's kvalues_iq4nl.
static const int8_t iq4_values[16] = {
    -127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113,
};

INLINE void look_up(int8_t *q, const uint8_t *bytes) {
    nibbles(q, bytes);
    for (int i = 0; i < 32; i++) q[i] = iq4_values[q[i]];
}

static void decode_iq4_xs(Group *group, const uint8_t *block, int g) {
    int low = block[4 + g / 2] >> g % 2 * 4 & 15, high = load_u16(block + 2) >> 2 * g & 3;
    set_scales(group, f16_to_float(load_u16(block)) * (float)((low | high << 4) - 32), 0.0f);
    look_up(group->q, block + 8 + 16 * g);
}

// Codes of four bits, the first in the lowest bits, as MLC, MLX and compressed-tensors write them.
INLINE void codes4(int8_t *q, const uint8_t *bytes) {
    for (int i = 0; i < 32; i += 8) {  // a word becomes eight bytes, by halves
        uint32_t word;
        memcpy(&word, bytes + i / 2, 4);
        uint64_t codes = word;
        codes = (codes | codes << 16) & 0x0000ffff0000ffffull;
        codes = (codes | codes << 8) & 0x00ff00ff00ff00ffull;
        codes = (codes | codes << 4) & NIBBLES;
        memcpy(q + i, &codes, 8);
    }
}

INLINE float plane_number(Group *group, const Storage *storage, const uint8_t *p) {
    uint16_t bits = load_u16(p);
    float a = storage->is_bf16 ? bf16_to_float(bits) : f16_to_float(bits);
    if (!(a <= LARGEST_F16 && a >= -LARGEST_F16)) group->is_out_of_range = 1;
    return a;
}

// Decodes columns 32 * b .. 32 * b + 31 of a quantized row.
INLINE void decode_group(Group *group, const Storage *storage, const Row *row, uint32_t b) {
    uint32_t groups = storage->block_elements / 32;
    const uint8_t *planes[MAX_PLANES], *block;
    int g = (int)(b % groups);
    for (int p = 0; p < MAX_PLANES; p++) {
        planes[p] = row->planes[p] + (size_t)(b / groups) * storage->block_bytes[p];
    }
    block = planes[0];
    group->is_out_of_range = 0;
    switch (storage->type) {
        case TYPE_Q4_0:
            set_scales(group, f16_to_float(load_u16(block)), 0.0f);
            nibbles(group->q, block + 2);
            break;
        case TYPE_Q4_1:
            set_scales(group, f16_to_float(load_u16(block)), f16_to_float(load_u16(block + 2)));
            nibbles(group->q, block + 4);
            break;
        case TYPE_Q5_0:
            set_scales(group, f16_to_float(load_u16(block)), 0.0f);
            nibbles5(group->q, block + 2, block + 6);
            break;
        case TYPE_Q5_1:
            set_scales(group, f16_to_float(load_u16(block)), f16_to_float(load_u16(block + 2)));
            nibbles5(group->q, block + 4, block + 8);
            break;
        case TYPE_Q8_0:
            set_scales(group, f16_to_float(load_u16(block)), 0.0f);
            memcpy(group->q, block + 2, 32);
            break;
        case TYPE_Q2_K: decode_q2_k(group, block, g); break;
        case TYPE_Q3_K: decode_q3_k(group, block, g); break;
        case TYPE_Q4_K: decode_q4_k(group, block, g); break;
        case TYPE_Q5_K: decode_q5_k(group, block, g); break;
        case TYPE_Q6_K: decode_q6_k(group, block, g); break;
        case TYPE_IQ4_NL:
            set_scales(group, f16_to_float(load_u16(block)), 0.0f);
            look_up(group->q, block + 2);
            break;
        case TYPE_IQ4_XS: decode_iq4_xs(group, block, g); break;
        case TYPE_GROUP4:
            set_scales(group, plane_number(group, storage, planes[1]), 0.0f);
            codes4(group->q, block + 16 * g);
            break;
        case TYPE_AFFINE4:
            set_scales(group, plane_number(group, storage, planes[1]),
                       plane_number(group, storage, planes[2]));
            codes4(group->q, block + 16 * g);
            break;
        default: *group = (Group){0};
    }
    if (!storage->zero) return;
    for (int i = 0; i < 32; i++) group->q[i] = (int8_t)(group->q[i] - (int)storage->zero);
}

// Decodes columns 32 * b .. 32 * b + 31 of a row of any type to f32. Returns whether all of its
// scales fit f16.
INLINE int decode_floats(float *out, const Storage *storage, const Row *row, uint32_t b) {
    const uint8_t *block = row->planes[0];
    Group g = {0};
    switch (storage->type) {
        case TYPE_F32: memcpy(out, block + (size_t)b * 128, 128); break;
        case TYPE_F16:
            for (uint32_t i = 32 * b; i < 32 * b + 32; i++) {
                *out++ = f16_to_float(load_u16(block + 2 * i));
            }
            break;
        case TYPE_BF16:
            for (uint32_t i = 32 * b; i < 32 * b + 32; i++) {
                *out++ = bf16_to_float(load_u16(block + 2 * i));
            }
            break;
        default:
            decode_group(&g, storage, row, b);
            for (int i = 0; i < 32; i++) {
                out[i] = g.scale[i / 16] * (float)g.q[i] + g.minimum[i / 16];
            }
    }
    return !g.is_out_of_range;
}
