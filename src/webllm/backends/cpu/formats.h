// Weight formats: the panels that the matrix kernels read.
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
#include "quantize.h"

enum { BITS8 = 1, GROUPS_OF_16 = 2, MINS = 4, FORMAT_F16 = 8, FORMAT_BF16 = 9, FORMAT_F32 = 10 };

INLINE size_t quant_bytes(uint32_t format) { return format & BITS8 ? 512 : 256; }
INLINE size_t scale_bytes(uint32_t format) { return format & GROUPS_OF_16 ? 64 : 32; }

INLINE size_t panel_bytes(uint32_t format, uint32_t cols) {
    if (format >= FORMAT_F16) return (size_t)cols * PANEL * (format == FORMAT_F32 ? 4 : 2);
    return cols / 32 * (quant_bytes(format) + scale_bytes(format) * (format & MINS ? 2 : 1));
}

// ----------------------------------------------------------------------------- packing a row

INLINE void store_scale(uint8_t *p, uint32_t row, float scale) {
    uint16_t half = f16_from_float(scale);
    memcpy(p + 2 * row, &half, 2);
}

// Four bits hold -8 .. 7. A group with 8, MLC's code 15, which its writers do not emit, is stored as
// the negative numbers with a negative scale.
INLINE void negate_if_large(Group *g) {
    uint8_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= (uint8_t)(g->q[i] + 8);
    if (bits < 16) return;
    for (int i = 0; i < 32; i++) g->q[i] = (int8_t)-g->q[i];
    g->scale[0] = -g->scale[0];
    g->scale[1] = -g->scale[1];
}

// Stores q + offset, which is 0..15: `offset` is 8 for types with signed values, whose minimum then
// is -8 * scale.
INLINE void write_group4(uint8_t *block, uint32_t format, uint32_t row, Group *g, int offset) {
    uint8_t q[32];
    for (int i = 0; i < 32; i++) q[i] = (uint8_t)(g->q[i] + offset);
    for (int c = 0; c < 4; c++) {
        uint32_t low, high;
        memcpy(&low, q + 8 * c, 4);
        memcpy(&high, q + 8 * c + 4, 4);
        low |= high << 4;
        memcpy(block + c * 64 + row * 4, &low, 4);
    }
    for (int h = 0; h < (format & GROUPS_OF_16 ? 2 : 1); h++) {
        g->minimum[h] -= g->scale[h] * (float)offset;
    }
}

INLINE void write_group8(uint8_t *block, uint32_t row, const Group *g) {
    for (int c = 0; c < 8; c++) memcpy(block + c * 64 + row * 4, g->q + 4 * c, 4);
}

INLINE void write_group(uint8_t *block, uint32_t format, uint32_t zero, uint32_t row, Group *g) {
    uint8_t *scales = block + quant_bytes(format), *minima = scales + scale_bytes(format);
    if (format & BITS8) {
        write_group8(block, row, g);
    } else {
        if (zero && zero < 8) negate_if_large(g);
        write_group4(block, format, row, g, zero ? 8 : 0);
    }
    for (int h = 0; h < (format & GROUPS_OF_16 ? 2 : 1); h++) {
        store_scale(scales + 32 * h, row, g->scale[h]);
        if (format & MINS) store_scale(minima + 32 * h, row, g->minimum[h]);
    }
}

INLINE int write_floats(uint8_t *panel, uint32_t format, const Storage *storage, uint32_t row,
                        uint32_t b, const Row *source) {
    uint8_t *out = panel + (size_t)(b * 32 * PANEL + row) * (format == FORMAT_F32 ? 4 : 2);
    if (format == FORMAT_F32) {
        float x[32];
        int fits = decode_floats(x, storage, source, b);
        for (int i = 0; i < 32; i++) memcpy(out + i * PANEL * 4, x + i, 4);
        return fits;
    }
    for (int i = 0; i < 32; i++) {
        memcpy(out + i * PANEL * 2, source->planes[0] + ((size_t)b * 32 + (size_t)i) * 2, 2);
    }
    return 1;
}

// Packs rows first .. last - 1 of one panel; source[row] is the row as the file stores it. Returns
// whether all of their scales fit f16.
INLINE int pack_rows(uint8_t *panel, uint32_t format, const Storage *storage, uint32_t cols,
                     uint32_t first, uint32_t last, const Row *source) {
    size_t block_bytes = panel_bytes(format, 32);
    int fits = 1;
    for (uint32_t b = 0; b < cols / 32; b++) {
        for (uint32_t row = first; row < last; row++) {
            if (format >= FORMAT_F16) {
                fits &= write_floats(panel, format, storage, row, b, source + row);
            } else {
                Group g;
                if (storage->quantized) {
                    quantize_group(&g, storage, source + row, b);
                } else {
                    decode_group(&g, storage, source + row, b);
                }
                write_group(panel + b * block_bytes, format, storage->zero, row, &g);
                fits &= !g.is_out_of_range;
            }
        }
    }
    return fits;
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
