// Activations quantized to int8 in groups of 32, and the tiles that multiply them by weight panels.

#pragma once
#include "formats.h"

// ------------------------------------------------------------------------------- activations

// A row of Encoding.ACTIVATION is stored as
//
//   q      int8 [cols], x = scale * q
//   scale  f32 [cols / 32]
//   sum    f32 [cols / 32], the sum of scale * q over a group; minima and offsets multiply it
//   half   f32 [cols / 16], the same sum over each half of a group
//   x      f32 [cols], in ENCODING_BOTH only; float weights multiply it
enum { ENCODING_F32, ENCODING_INT8, ENCODING_BOTH };

INLINE size_t int8_bytes(uint32_t cols) { return cols + (size_t)cols / 2; }

INLINE size_t row_bytes(uint32_t encoding, uint32_t cols) {
    if (encoding == ENCODING_F32) return (size_t)cols * 4;
    return int8_bytes(cols) + (encoding == ENCODING_BOTH ? (size_t)cols * 4 : 0);
}

// Encodes columns 32 * b .. 32 * b + 31 of one row.
INLINE void encode_group(uint8_t *row, uint32_t encoding, uint32_t cols, uint32_t b,
                         const float *x) {
    if (encoding == ENCODING_F32) {
        memcpy(row + (size_t)b * 128, x, 128);
        return;
    }
    float *scale = (float *)(row + cols), *sum = scale + cols / 32, *half = sum + cols / 32;
    VF v[32 / LANES], top = vf_splat(0.0f);
    UNROLL for (int i = 0; i < 32 / LANES; i++) {
        v[i] = vf_load(x + i * LANES);
        top = vf_max(top, vf_abs(v[i]));
    }
    float largest = vf_reduce_max(top);
    float inverse = largest > 1e-30f ? 127.0f / largest : 0.0f;
    scale[b] = largest / 127.0f;
    float sums[2];  // exact in f32; ints could overflow where x is not finite
    UNROLL for (int h = 0; h < 2; h++) {
        VI total = vi_zero();
        UNROLL for (int i = 0; i < 16 / LANES; i++) {
            int at = h * (16 / LANES) + i;
            VI q = vf_round(vf_mul(v[at], vf_splat(inverse)));
            vi_store_i8((int8_t *)row + 32 * b + at * LANES, q);
            total = vi_add(total, q);
        }
        sums[h] = (float)vi_reduce_add(total);
        half[2 * b + (uint32_t)h] = scale[b] * sums[h];
    }
    sum[b] = scale[b] * (sums[0] + sums[1]);
    if (encoding == ENCODING_BOTH) memcpy(row + int8_bytes(cols) + (size_t)b * 128, x, 128);
}

static void encode_row(uint8_t *row, uint32_t encoding, uint32_t cols, const float *x) {
    for (uint32_t b = 0; b < cols / 32; b++) encode_group(row, encoding, cols, b, x + 32 * b);
}

// -------------------------------------------------------------------------------------- tiles

#define TILE_MAX 8  // most vectors of a tile; arrays of [T * V] would have variable length in C

// Computes y[t][row] for T tokens (rows of x, `stride` bytes apart) and V vectors of the panel's
// rows, from vector `v0` on. `format`, T and V are constants wherever this is inlined.
INLINE void quant_tile(const uint32_t format, const int T, const int V, const uint8_t *panel,
                       uint32_t cols, const uint8_t *x, size_t stride, int v0, float *y) {
    const int halves = format & GROUPS_OF_16 ? 2 : 1;
    const int chunks = (format & BITS8 ? 8 : 4) / halves;
    const float offset = format & BITS8 ? DOT8_OFFSET : format & MINS ? 0 : 8;
    const uint8_t *w = panel + v0 * LANES * 4;
    const uint8_t *scales = panel + quant_bytes(format) + v0 * LANES * 2;
    const uint8_t *minima = scales + scale_bytes(format);
    const size_t block_bytes = panel_bytes(format, 32);
    const uint8_t *x_scale = x + cols;
    const uint8_t *x_sum = x_scale + (format & GROUPS_OF_16 ? cols / 4 : cols / 8);
    VF acc[TILE_MAX];
    UNROLL for (int i = 0; i < T * V; i++) acc[i] = vf_splat(0.0f);

    for (uint32_t b = 0; b < cols / 32; b++) {
        for (int h = 0; h < halves; h++) {
            VI dot[TILE_MAX];
            UNROLL for (int i = 0; i < T * V; i++) dot[i] = vi_zero();
            CHUNK_LOOP for (int c = 0; c < chunks; c++) {
                const uint8_t *wc = w + (h * chunks + c) * 64;
                const uint8_t *xc = x + (h * chunks + c) * (format & BITS8 ? 4 : 8);
                VI low[VECTORS_PER_PANEL], high[VECTORS_PER_PANEL];
                UNROLL for (int v = 0; v < V; v++) {
                    VI both = vi_load(wc + v * LANES * 4);
                    low[v] = format & BITS8 ? both : vi_low(both);
                    high[v] = vi_high(both);
                }
                UNROLL for (int t = 0; t < T; t++) {
                    VI first = vi_splat4(xc + (size_t)t * stride);
                    UNROLL for (int v = 0; v < V; v++) {
                        dot[t * V + v] = format & BITS8 ? dot8(dot[t * V + v], low[v], first)
                                                        : dot4(dot[t * V + v], low[v], first);
                    }
                }
                if (format & BITS8) continue;
                UNROLL for (int t = 0; t < T; t++) {
                    VI second = vi_splat4(xc + (size_t)t * stride + 4);
                    UNROLL for (int v = 0; v < V; v++) {
                        dot[t * V + v] = dot4(dot[t * V + v], high[v], second);
                    }
                }
            }
            VF scale[VECTORS_PER_PANEL], minimum[VECTORS_PER_PANEL];
            UNROLL for (int v = 0; v < V; v++) {
                scale[v] = vf_load_f16((const void *)(scales + h * 32 + v * LANES * 2));
                if (format & MINS) {
                    minimum[v] = vf_load_f16((const void *)(minima + h * 32 + v * LANES * 2));
                }
            }
            UNROLL for (int t = 0; t < T; t++) {
                float token_scale, token_sum;
                memcpy(&token_scale, x_scale + (size_t)t * stride, 4);
                memcpy(&token_sum, x_sum + (size_t)t * stride + h * 4, 4);
                UNROLL for (int v = 0; v < V; v++) {
                    VI total = format & BITS8 ? dot[t * V + v] : dot4_sum(dot[t * V + v]);
                    VF product = vf_mul(vi_to_f(total), vf_splat(token_scale));
                    if (offset != 0) {
                        product = vf_add(product, vf_splat(-offset * token_sum));
                    }
                    acc[t * V + v] = vf_fma(product, scale[v], acc[t * V + v]);
                    if (format & MINS) {
                        acc[t * V + v] = vf_fma(minimum[v], vf_splat(token_sum), acc[t * V + v]);
                    }
                }
            }
        }
        w += block_bytes;
        scales += block_bytes;
        minima += block_bytes;
        x += 32;
        x_scale += 4;
        x_sum += format & GROUPS_OF_16 ? 8 : 4;
    }
    UNROLL for (int t = 0; t < T; t++) {
        UNROLL for (int v = 0; v < V; v++) vf_store(y + t * PANEL + (v0 + v) * LANES, acc[t * V + v]);
    }
}

INLINE VF load_weights(const uint32_t format, const uint8_t *panel, size_t at) {
    if (format == FORMAT_F32) return vf_load((const float *)panel + at);
    if (format == FORMAT_F16) return vf_load_f16((const uint16_t *)panel + at);
    return vf_load_bf16((const uint16_t *)panel + at);
}

INLINE void float_tile(const uint32_t format, const int T, const int V, const uint8_t *panel,
                       uint32_t cols, const uint8_t *x, size_t stride, int v0, float *y) {
    VF acc[TILE_MAX];
    UNROLL for (int i = 0; i < T * V; i++) acc[i] = vf_splat(0.0f);
    x += int8_bytes(cols);
    for (uint32_t k = 0; k < cols; k++) {
        VF w[VECTORS_PER_PANEL];
        UNROLL for (int v = 0; v < V; v++) {
            w[v] = load_weights(format, panel, (size_t)k * PANEL + (size_t)((v0 + v) * LANES));
        }
        UNROLL for (int t = 0; t < T; t++) {
            VF a = vf_splat(((const float *)(x + (size_t)t * stride))[k]);
            UNROLL for (int v = 0; v < V; v++) {
                acc[t * V + v] = vf_fma(a, w[v], acc[t * V + v]);
            }
        }
    }
    UNROLL for (int t = 0; t < T; t++) {
        UNROLL for (int v = 0; v < V; v++) vf_store(y + t * PANEL + (v0 + v) * LANES, acc[t * V + v]);
    }
}

// One function for each format and number of tokens: y[t][16] = x[t] @ panel.T
typedef void (*Tile)(const uint8_t *panel, uint32_t cols, const uint8_t *x, size_t stride,
                     float *y);

#define DEFINE_TILE(kind, format, T, V)                                                       \
    static void kind##_##format##_##T(const uint8_t *panel, uint32_t cols, const uint8_t *x,  \
                                      size_t stride, float *y) {                              \
        for (int v0 = 0; v0 < VECTORS_PER_PANEL; v0 += (V)) {                                 \
            kind(format, T, V, panel, cols, x, stride, v0, y);                                \
        }                                                                                     \
    }
#define DEFINE_TILES(kind, format)                                                            \
    DEFINE_TILE(kind, format, 1, VECTORS_PER_PANEL)                                           \
    DEFINE_TILE(kind, format, 2, PAIR_VECTORS)                                                \
    DEFINE_TILE(kind, format, 4, TILE_VECTORS)                                                \
    DEFINE_TILE_8(kind, format)
#if TILE_TOKENS == 8
#define DEFINE_TILE_8(kind, format) DEFINE_TILE(kind, format, 8, TILE_VECTORS)
#define TILES(kind, format)                                                                   \
    {kind##_##format##_1, kind##_##format##_2, kind##_##format##_4, kind##_##format##_8}
#else
#define DEFINE_TILE_8(kind, format)
#define TILES(kind, format) {kind##_##format##_1, kind##_##format##_2, kind##_##format##_4}
#endif

DEFINE_TILES(quant_tile, 0)
DEFINE_TILES(quant_tile, 1)
DEFINE_TILES(quant_tile, 2)
DEFINE_TILES(quant_tile, 3)
DEFINE_TILES(quant_tile, 4)
DEFINE_TILES(quant_tile, 5)
DEFINE_TILES(quant_tile, 6)
DEFINE_TILES(quant_tile, 7)
DEFINE_TILES(float_tile, FORMAT_F16)
DEFINE_TILES(float_tile, FORMAT_BF16)
DEFINE_TILES(float_tile, FORMAT_F32)

static const Tile tiles[][4] = {
    TILES(quant_tile, 0),           TILES(quant_tile, 1),
    TILES(quant_tile, 2),           TILES(quant_tile, 3),
    TILES(quant_tile, 4),           TILES(quant_tile, 5),
    TILES(quant_tile, 6),           TILES(quant_tile, 7),
    TILES(float_tile, FORMAT_F16),  TILES(float_tile, FORMAT_BF16),
    TILES(float_tile, FORMAT_F32),
};

// Returns log2 of the tokens of the largest tile that fits `num_tokens`.
INLINE uint32_t tile_log2(uint32_t num_tokens) {
    return num_tokens >= 8 && TILE_TOKENS == 8 ? 3 : num_tokens >= 4 ? 2 : num_tokens >= 2;
}
