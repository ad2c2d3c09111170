// A self-test: compares the int8 matrix kernels with scalar arithmetic, on the machine that runs
// them. Some WebAssembly engines compute relaxed SIMD wrongly; the caller then loads another build.

#pragma once
#include "matmul.h"

#define TEST_COLS 64                // two blocks
#define MAX_BLOCK_BYTES (512 + 128)  // 8 bits, groups of 16, minima; see formats.h

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

// Fills the blocks of a panel with random weights. Quants are never -128, which ggml's quantizers do
// not write. In the high byte of each f16 scale or minimum, sign and mantissa stay random; the
// exponent is set to 2^-7 or 2^-6, so that nothing is infinite or NaN.
static void random_panel(uint8_t *panel, uint32_t format, uint32_t *state) {
    size_t block = panel_bytes(format, 32);
    for (size_t i = 0; i < TEST_COLS / 32 * block; i++) {
        panel[i] = (uint8_t)(next_random(state) >> 24);
        if (i % block < quant_bytes(format)) {
            if (panel[i] == 0x80) panel[i] = 0x81;
        } else if (i % 2) {
            panel[i] = (uint8_t)(0x20 | (panel[i] & 0x87));
        }
    }
}

// Tests the kernel for 2^log2 tokens: y = panel * x, where x is random too.
static int tile_is_correct(uint32_t format, uint32_t log2, uint32_t *state) {
    _Alignas(64) uint8_t panel[TEST_COLS / 32 * MAX_BLOCK_BYTES];
    _Alignas(64) uint8_t x[TILE_TOKENS][TEST_COLS + TEST_COLS / 2];  // see encode_row
    float y[TILE_TOKENS * PANEL], row[TEST_COLS];
    random_panel(panel, format, state);
    for (uint32_t t = 0; t < 1u << log2; t++) {
        for (int k = 0; k < TEST_COLS; k++) row[k] = (float)(next_random(state) >> 8) - 0x1p23f;
        encode_row(x[t], ENCODING_INT8, TEST_COLS, row);
    }
    tiles[format][log2](panel, TEST_COLS, x[0], sizeof x[0], y);
    for (uint32_t i = 0; i < (uint32_t)PANEL << log2; i++) {
        const uint8_t *token = x[i / PANEL];
        float expected = 0.0f, magnitude = 0.0f;  // the sum of the products, and of their sizes
        unpack_row(row, format, panel, TEST_COLS, i % PANEL);
        for (int k = 0; k < TEST_COLS; k++) {
            float scale;
            memcpy(&scale, token + TEST_COLS + k / 32 * 4, 4);
            float product = row[k] * scale * (float)(int8_t)token[k];
            expected += product;
            magnitude += product < 0 ? -product : product;
        }
        float error = y[i] - expected;
        if (!(error * error <= 1e-8f * magnitude * magnitude)) return 0;  // also if it is NaN
    }
    return 1;
}

// Returns whether the kernels of every quantized format and tile size are correct.
static int tiles_are_correct(void) {
    uint32_t state = 1;
    for (uint32_t format = 0; format < FORMAT_F16; format++) {
        for (uint32_t log2 = 0; log2 <= tile_log2(TILE_TOKENS); log2++) {
            if (!tile_is_correct(format, log2, &state)) return 0;
        }
    }
    return 1;
}
