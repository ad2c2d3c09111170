// Weight formats: GGML's blocks as files store them, and the panels that the matrix kernels read.
//
// A packed weight is a sequence of panels; a panel is 16 rows with all columns. A quantized panel
// is a sequence of blocks of 32 columns. A block holds, in this order,
//
//   quants   4 bits: 4 chunks of 64 bytes; byte (row, j) of chunk c has column 8c + j in its low
//            and 8c + 4 + j in its high nibble (j < 4), so that one vector holds 4 columns of rows
//            8 bits: 8 chunks of 64 bytes; byte (row, j) of chunk c is column 4c + j
//   scales   16 f16, one for each row; with GROUPS_OF_16 twice: for columns 0..15, then 16..31
//   minima   laid out as the scales; only with MINS
//
// A weight is scale * q + minimum, or scale * (q - 8) for 4 bits without minima. Formats are flags:
// the smallest format that holds two others exactly is their union. A float panel is
// [column][16 rows].

#pragma once
#include "simd.h"

enum { BITS8 = 1, GROUPS_OF_16 = 2, MINS = 4, FORMAT_F16 = 8, FORMAT_BF16 = 9, FORMAT_F32 = 10 };

// ggml's `enum ggml_type`
enum {
    TYPE_F32 = 0, TYPE_F16 = 1, TYPE_Q4_0 = 2, TYPE_Q4_1 = 3, TYPE_Q5_0 = 6, TYPE_Q5_1 = 7,
    TYPE_Q8_0 = 8, TYPE_Q2_K = 10, TYPE_Q3_K = 11, TYPE_Q4_K = 12, TYPE_Q5_K = 13, TYPE_Q6_K = 14,
    TYPE_BF16 = 30,
};

INLINE size_t quant_bytes(uint32_t format) { return format & BITS8 ? 512 : 256; }
INLINE size_t scale_bytes(uint32_t format) { return format & GROUPS_OF_16 ? 64 : 32; }

INLINE size_t panel_bytes(uint32_t format, uint32_t cols) {
    if (format >= FORMAT_F16) return (size_t)cols * PANEL * (format == FORMAT_F32 ? 4 : 2);
    return cols / 32 * (quant_bytes(format) + scale_bytes(format) * (format & MINS ? 2 : 1));
}

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

// --------------------------------------------------------------------------- blocks in files

typedef struct {  // 32 weights: scale[i / 16] * q[i] + minimum[i / 16]
    int8_t q[32];
    float scale[2], minimum[2];
} Group;

INLINE void set_scales(Group *g, float scale, float minimum) {
    g->scale[0] = g->scale[1] = scale;
    g->minimum[0] = g->minimum[1] = minimum;
}

INLINE void nibbles(int8_t *q, const uint8_t *bytes, int zero) {
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)((bytes[i] & 15) - zero);
        q[i + 16] = (int8_t)((bytes[i] >> 4) - zero);
    }
}

INLINE void nibbles5(int8_t *q, const uint8_t *high, const uint8_t *bytes, int zero) {
    uint32_t bits;
    memcpy(&bits, high, 4);
    for (int i = 0; i < 16; i++) {
        q[i] = (int8_t)(((bytes[i] & 15) | (bits >> i & 1) << 4) - zero);
        q[i + 16] = (int8_t)(((bytes[i] >> 4) | (bits >> (i + 16) & 1) << 4) - zero);
    }
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
        group->q[i] = (int8_t)((q[i] >> g % 4 * 2 & 3) - (block[i] >> g & 1 ? 0 : 4));
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
        int q = (low[i] >> k / 2 * 4 & 15) | (high[i] >> 2 * k & 3) << 4;
        group->q[i] = (int8_t)(q - 32);
    }
    for (int h = 0; h < 2; h++) {
        group->scale[h] = scale * (float)(int8_t)block[192 + 2 * g + h];
        group->minimum[h] = 0.0f;
    }
}

INLINE size_t file_row_bytes(uint32_t type, uint32_t cols) {
    switch (type) {
        case TYPE_F32: return (size_t)cols * 4;
        case TYPE_F16:
        case TYPE_BF16: return (size_t)cols * 2;
        case TYPE_Q4_0: return (size_t)cols / 32 * 18;
        case TYPE_Q4_1: return (size_t)cols / 32 * 20;
        case TYPE_Q5_0: return (size_t)cols / 32 * 22;
        case TYPE_Q5_1: return (size_t)cols / 32 * 24;
        case TYPE_Q8_0: return (size_t)cols / 32 * 34;
        case TYPE_Q2_K: return (size_t)cols / 256 * 84;
        case TYPE_Q3_K: return (size_t)cols / 256 * 110;
        case TYPE_Q4_K: return (size_t)cols / 256 * 144;
        case TYPE_Q5_K: return (size_t)cols / 256 * 176;
        case TYPE_Q6_K: return (size_t)cols / 256 * 210;
        default: return 0;
    }
}

// Decodes columns 32 * b .. 32 * b + 31 of a quantized row.
INLINE void decode_group(Group *group, uint32_t type, const uint8_t *row, uint32_t b) {
    const uint8_t *k_block = row + file_row_bytes(type, 256) * (b / 8);
    const uint8_t *block = row + file_row_bytes(type, 32) * b;
    int g = (int)(b % 8);
    switch (type) {
        case TYPE_Q4_0:
            set_scales(group, f16_to_float(load_u16(block)), 0.0f);
            nibbles(group->q, block + 2, 8);
            break;
        case TYPE_Q4_1:
            set_scales(group, f16_to_float(load_u16(block)), f16_to_float(load_u16(block + 2)));
            nibbles(group->q, block + 4, 0);
            break;
        case TYPE_Q5_0:
            set_scales(group, f16_to_float(load_u16(block)), 0.0f);
            nibbles5(group->q, block + 2, block + 6, 16);
            break;
        case TYPE_Q5_1:
            set_scales(group, f16_to_float(load_u16(block)), f16_to_float(load_u16(block + 2)));
            nibbles5(group->q, block + 4, block + 8, 0);
            break;
        case TYPE_Q8_0:
            set_scales(group, f16_to_float(load_u16(block)), 0.0f);
            memcpy(group->q, block + 2, 32);
            break;
        case TYPE_Q2_K: decode_q2_k(group, k_block, g); break;
        case TYPE_Q3_K: decode_q3_k(group, k_block, g); break;
        case TYPE_Q4_K: decode_q4_k(group, k_block, g); break;
        case TYPE_Q5_K: decode_q5_k(group, k_block, g); break;
        case TYPE_Q6_K: decode_q6_k(group, k_block, g); break;
        default: *group = (Group){0};
    }
}

// Decodes columns 32 * b .. 32 * b + 31 of a row of any type to f32.
INLINE void decode_floats(float *out, uint32_t type, const uint8_t *row, uint32_t b) {
    if (type == TYPE_F32) {
        memcpy(out, row + (size_t)b * 128, 128);
    } else if (type == TYPE_F16) {
        for (int i = 0; i < 32; i++) out[i] = f16_to_float(load_u16(row + (size_t)b * 64 + 2 * i));
    } else if (type == TYPE_BF16) {
        for (int i = 0; i < 32; i++) out[i] = bf16_to_float(load_u16(row + (size_t)b * 64 + 2 * i));
    } else {
        Group g;
        decode_group(&g, type, row, b);
        for (int i = 0; i < 32; i++) out[i] = g.scale[i / 16] * (float)g.q[i] + g.minimum[i / 16];
    }
}

// ----------------------------------------------------------------------------- packing a row

INLINE void store_scale(uint8_t *p, uint32_t row, float scale) {
    uint16_t half = f16_from_float(scale);
    memcpy(p + 2 * row, &half, 2);
}

// Stores q + zero, which is 0..15: `zero` is 8 for the signed values of Q4_0 and Q3_K, whose
// minimum then is -8 * scale.
INLINE void write_group4(uint8_t *block, uint32_t format, uint32_t row, Group *g, int zero) {
    for (int c = 0; c < 4; c++) {
        uint8_t four[4];
        for (int j = 0; j < 4; j++) {
            four[j] = (uint8_t)((g->q[8 * c + j] + zero) | (g->q[8 * c + 4 + j] + zero) << 4);
        }
        memcpy(block + c * 64 + row * 4, four, 4);
    }
    for (int h = 0; h < (format & GROUPS_OF_16 ? 2 : 1); h++) {
        g->minimum[h] -= g->scale[h] * (float)zero;
    }
}

INLINE void write_group8(uint8_t *block, uint32_t row, const Group *g) {
    for (int c = 0; c < 8; c++) memcpy(block + c * 64 + row * 4, g->q + 4 * c, 4);
}

// A type of 4 bits whose q are signed needs its zero here; one of 8 bits needs nothing.
INLINE void write_group(uint8_t *block, uint32_t format, uint32_t type, uint32_t row, Group *g) {
    uint8_t *scales = block + quant_bytes(format), *minima = scales + scale_bytes(format);
    if (format & BITS8) {
        write_group8(block, row, g);
    } else {
        write_group4(block, format, row, g, type == TYPE_Q4_0 || type == TYPE_Q3_K ? 8 : 0);
    }
    for (int h = 0; h < (format & GROUPS_OF_16 ? 2 : 1); h++) {
        store_scale(scales + 32 * h, row, g->scale[h]);
        if (format & MINS) store_scale(minima + 32 * h, row, g->minimum[h]);
    }
}

INLINE void write_floats(uint8_t *panel, uint32_t format, uint32_t type, uint32_t row, uint32_t b,
                         const uint8_t *source) {
    uint8_t *out = panel + (size_t)(b * 32 * PANEL + row) * (format == FORMAT_F32 ? 4 : 2);
    if (format == FORMAT_F32) {
        float x[32];
        decode_floats(x, type, source, b);
        for (int i = 0; i < 32; i++) memcpy(out + i * PANEL * 4, x + i, 4);
    } else {
        for (int i = 0; i < 32; i++) {
            memcpy(out + i * PANEL * 2, source + ((size_t)b * 32 + (size_t)i) * 2, 2);
        }
    }
}

// Packs rows first .. last - 1 of one panel; source[row] is the row as the file stores it.
INLINE void pack_rows(uint8_t *panel, uint32_t format, uint32_t type, uint32_t cols, uint32_t first,
                      uint32_t last, const uint8_t *const *source) {
    size_t block_bytes = panel_bytes(format, 32);
    for (uint32_t b = 0; b < cols / 32; b++) {
        for (uint32_t row = first; row < last; row++) {
            if (format >= FORMAT_F16) {
                write_floats(panel, format, type, row, b, source[row]);
            } else {
                Group g;
                decode_group(&g, type, source[row], b);
                write_group(panel + b * block_bytes, format, type, row, &g);
            }
        }
    }
}

// -------------------------------------------------------------------------- reading one row

INLINE void unpack_group(float *out, uint32_t format, const uint8_t *block, uint32_t row) {
    const uint8_t *scales = block + quant_bytes(format), *minima = scales + scale_bytes(format);
    for (int i = 0; i < 32; i++) {
        size_t at = 2 * row + (format & GROUPS_OF_16 ? (size_t)(i / 16 * 32) : 0);
        float scale = f16_to_float(load_u16(scales + at));
        float minimum = format & MINS ? f16_to_float(load_u16(minima + at)) : 0.0f;
        int q;
        if (format & BITS8) {
            q = (int8_t)block[i / 4 * 64 + (int)row * 4 + i % 4];
        } else {
            q = block[i / 8 * 64 + (int)row * 4 + i % 4] >> i / 4 % 2 * 4 & 15;
            if (!(format & MINS)) q -= 8;
        }
        out[i] = scale * (float)q + minimum;
    }
}

INLINE float unpack_float(uint32_t format, const uint8_t *panel, size_t at) {
    if (format == FORMAT_F16) return f16_to_float(load_u16(panel + 2 * at));
    if (format == FORMAT_BF16) return bf16_to_float(load_u16(panel + 2 * at));
    float a;
    memcpy(&a, panel + 4 * at, 4);
    return a;
}

static void unpack_row(float *out, uint32_t format, const uint8_t *panel, uint32_t cols,
                       uint32_t row) {
    for (uint32_t b = 0; format < FORMAT_F16 && b < cols / 32; b++) {
        unpack_group(out + 32 * b, format, panel + b * panel_bytes(format, 32), row);
    }
    for (uint32_t k = 0; format >= FORMAT_F16 && k < cols; k++) {
        out[k] = unpack_float(format, panel, (size_t)k * PANEL + row);
    }
}
