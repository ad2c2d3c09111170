// Quantizes floats while they are packed, as ggml's quantize_row_q4_0_ref and quantize_row_q8_0_ref.

#pragma once
#include "blocks.h"

#define SMALLEST 0x1p-100f  // of groups that get codes: f16 has no such scale

INLINE uint32_t size_bits(float a) { return bits_of(a) & 0x7fffffff; }  // NaN's are the largest

INLINE float largest_of(const float *x) {  // the first of them, with its sign
    uint32_t size = 0;
    int first = 31;
    for (int i = 0; i < 32; i++) size = MAX(size, size_bits(x[i]));
    for (int i = 0; i < 32; i++) first = MIN(first, size_bits(x[i]) == size ? i : 31);
    return x[first];
}

INLINE int8_t round_away(float a) {  // halves go away from zero
    float size = float_of(size_bits(a));
    int whole = (int)size;
    whole += size - (float)whole >= 0.5f;
    return (int8_t)(a < 0.0f ? -whole : whole);
}

// Quantizes columns 32 * b .. 32 * b + 31 of a row of floats.
INLINE void quantize_group(Group *g, const Storage *storage, const Row *row, uint32_t b) {
    int is_q4 = storage->quantized == TYPE_Q4_0;
    float x[32], largest, scale, inverse;
    decode_floats(x, storage, row, b);
    largest = largest_of(x);
    *g = (Group){0};
    g->is_out_of_range = !(float_of(size_bits(largest)) <= (is_q4 ? 8 : 127) * LARGEST_F16);
    if (g->is_out_of_range) return;
    scale = is_q4 ? largest / -8.0f : float_of(size_bits(largest)) / 127.0f;
    inverse = float_of(size_bits(largest)) < SMALLEST ? 0.0f : 1.0f / scale;
    if (is_q4) {
        for (int i = 0; i < 32; i++) {
            g->q[i] = (int8_t)(MIN((int)(x[i] * inverse + 8.5f), 15) - 8);
        }
    } else {
        for (int i = 0; i < 32; i++) g->q[i] = round_away(x[i] * inverse);
    }
    scale = f16_to_float(f16_from_float(scale));
    set_scales(g, scale, 0.0f);
}
