// Vector primitives, one file for each instruction set; the compiler's target flags choose it.
//
//   VF   LANES floats                    VI   LANES int32, or 4 * LANES bytes
//   vf_scale2(a, n)         a * 2^n for normal results, as ldexp
//   vi_splat4(p)            the four bytes at p, in every lane
//   vi_low, vi_high         the low and the high nibble of every byte
//   vi_add, vi_reduce_add   wrap: a float that is not finite may become any int32
//   dot4(acc, w, x)   acc += four-byte products per lane, w in 0..15 unsigned, x in -127..127
//   dot4_sum(acc)     the int32 sums of up to 8 dot4 (some sets sum in 16 bits until then)
//   dot8(acc, w, x)   the same for signed w, plus DOT8_OFFSET * sum(x), which the caller subtracts
//   KV                element type of the KV cache: f16 where loading it costs one instruction
//
// A tile of TILE_TOKENS x TILE_VECTORS fills the registers.

#pragma once
#include <stddef.h>
#include <stdint.h>
#if defined(__wasm__)  // without a C library, kernels.c defines these two
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memset(void *to, int byte, size_t n);
#else
#include <string.h>
#endif

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE __attribute__((noinline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define CHUNK_LOOP UNROLL

#if defined(__AVX512VNNI__) && !defined(WEBLLM_256)
#include "simd_avx512.h"
#elif defined(__AVX2__)
#include "simd_avx2.h"
#elif defined(__ARM_FEATURE_DOTPROD)
#include "simd_neon.h"
#elif defined(__wasm_simd128__)
#include "simd_wasm.h"
#else
#include "simd_generic.h"
#endif

// ------------------------------------------------------------------ on top of the primitives

#define PANEL 16                       // rows of a weight that are interleaved
#define VECTORS_PER_PANEL (PANEL / LANES)
#define PAIR_VECTORS (VECTORS_PER_PANEL < 2 ? 1 : 2)  // of a tile of two tokens

#if KV_F16
typedef uint16_t KV;
INLINE VF vf_load_kv(const KV *p) { return vf_load_f16(p); }
INLINE void vf_store_kv(KV *p, VF a) { vf_store_f16(p, a); }
#else
typedef float KV;
INLINE VF vf_load_kv(const KV *p) { return vf_load(p); }
INLINE void vf_store_kv(KV *p, VF a) { vf_store(p, a); }
#endif

// exp(x) for x clamped to +-87, by a minimax polynomial of 2^f, |f| <= 1/2 (as in Cephes' expf);
// relative error below 2^-22
INLINE VF vf_exp(VF x) {
    x = vf_max(vf_min(x, vf_splat(87.0f)), vf_splat(-87.0f));
    VF t = vf_mul(x, vf_splat(1.44269504f));
    VI n = vf_round(t);
    VF f = vf_fma(vi_to_f(n), vf_splat(-0.693359375f), x);  // ln 2 in two parts
    f = vf_fma(vi_to_f(n), vf_splat(2.12194440e-4f), f);
    VF p = vf_splat(1.9875691500e-4f);
    p = vf_fma(p, f, vf_splat(1.3981999507e-3f));
    p = vf_fma(p, f, vf_splat(8.3334519073e-3f));
    p = vf_fma(p, f, vf_splat(4.1665795894e-2f));
    p = vf_fma(p, f, vf_splat(1.6666665459e-1f));
    p = vf_fma(p, f, vf_splat(5.0000001201e-1f));
    p = vf_fma(vf_mul(p, f), f, vf_add(f, vf_splat(1.0f)));
    return vf_scale2(p, n);
}
