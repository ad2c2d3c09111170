// WebAssembly SIMD, with and without its relaxed part; simd.h explains the names.

#pragma once
#include <wasm_simd128.h>
#define LANES 4
#define TILE_TOKENS 4
#define TILE_VECTORS 2
#define DOT8_OFFSET 0
#define KV_F16 0
#undef CHUNK_LOOP  // unrolled, clang hoists a whole block's loads and spills them
#define CHUNK_LOOP _Pragma("clang loop unroll(disable)")
typedef v128_t VF;
typedef v128_t VI;

INLINE VF vf_splat(float a) { return wasm_f32x4_splat(a); }
INLINE VF vf_load(const float *p) { return wasm_v128_load(p); }
INLINE void vf_store(float *p, VF a) { wasm_v128_store(p, a); }
INLINE VF vf_add(VF a, VF b) { return wasm_f32x4_add(a, b); }
INLINE VF vf_mul(VF a, VF b) { return wasm_f32x4_mul(a, b); }
INLINE VF vf_div(VF a, VF b) { return wasm_f32x4_div(a, b); }
INLINE VF vf_max(VF a, VF b) { return wasm_f32x4_pmax(a, b); }
INLINE VF vf_min(VF a, VF b) { return wasm_f32x4_pmin(a, b); }
INLINE VF vf_abs(VF a) { return wasm_f32x4_abs(a); }
INLINE VF vf_load_f16(const uint16_t *p) {  // exact for every finite half
    VI a = wasm_i32x4_shl(wasm_i32x4_load16x4(p), 13);
    a = wasm_v128_and(a, wasm_i32x4_const_splat((int)0x8fffe000));
    return wasm_f32x4_mul(a, wasm_f32x4_const_splat(0x1p112f));
}
INLINE VF vf_load_bf16(const uint16_t *p) {
    return wasm_i32x4_shl(wasm_u32x4_load16x4(p), 16);
}
INLINE float vf_reduce_add(VF a) {
    a = wasm_f32x4_add(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(a, 0) + wasm_f32x4_extract_lane(a, 1);
}
INLINE float vf_reduce_max(VF a) {
    a = vf_max(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
    return wasm_f32x4_extract_lane(vf_max(a, wasm_i32x4_shuffle(a, a, 1, 0, 3, 2)), 0);
}
INLINE VI vf_round(VF a) { return wasm_i32x4_trunc_sat_f32x4(wasm_f32x4_nearest(a)); }
INLINE VF vf_scale2(VF a, VI n) { return wasm_i32x4_add(a, wasm_i32x4_shl(n, 23)); }

INLINE VI vi_zero(void) { return wasm_i32x4_const_splat(0); }
INLINE VI vi_add(VI a, VI b) { return wasm_i32x4_add(a, b); }
INLINE int vi_reduce_add(VI a) {
    a = wasm_i32x4_add(a, wasm_i32x4_shuffle(a, a, 2, 3, 0, 1));
    return wasm_i32x4_extract_lane(wasm_i32x4_add(a, wasm_i32x4_shuffle(a, a, 1, 0, 3, 2)), 0);
}
INLINE VF vi_to_f(VI a) { return wasm_f32x4_convert_i32x4(a); }
INLINE void vi_store_i8(int8_t *p, VI a) {
    VI b = wasm_i16x8_narrow_i32x4(a, a);
    wasm_v128_store32_lane(p, wasm_i8x16_narrow_i16x8(b, b), 0);
}
INLINE VI vi_load(const void *p) { return wasm_v128_load(p); }
INLINE VI vi_splat4(const void *p) { return wasm_v128_load32_splat(p); }
INLINE VI vi_low(VI a) { return wasm_v128_and(a, wasm_i8x16_const_splat(15)); }
INLINE VI vi_high(VI a) { return wasm_u8x16_shr(a, 4); }

INLINE VI even_bytes(VI a) { return wasm_i16x8_shr(wasm_i16x8_shl(a, 8), 8); }
INLINE VI odd_bytes(VI a) { return wasm_i16x8_shr(a, 8); }

#if defined(__wasm_relaxed_simd__)
#define ISA "relaxed"
INLINE VF vf_fma(VF a, VF b, VF c) { return wasm_f32x4_relaxed_madd(a, b, c); }
// The 16-bit form: V8 11.3 computes the 32-bit relaxed dot-add wrongly.
INLINE VI dot4(VI acc, VI w, VI x) {
    return wasm_i16x8_add(acc, wasm_i16x8_relaxed_dot_i8x16_i7x16(x, w));
}
INLINE VI dot4_sum(VI acc) { return wasm_i32x4_extadd_pairwise_i16x8(acc); }
INLINE VI dot8(VI acc, VI w, VI x) {
    VI zero = vi_zero();
    __asm__("" : "+r"(zero));  // a constant zero would turn the comparison into a slow byte shift
    VI negative = wasm_i8x16_lt(w, zero);
    VI signed_x = wasm_i8x16_sub(wasm_v128_xor(x, negative), negative);
    VI pairs = wasm_i16x8_relaxed_dot_i8x16_i7x16(signed_x, wasm_i8x16_abs(w));
    return wasm_i32x4_add(acc, wasm_i32x4_extadd_pairwise_i16x8(pairs));
}
#else
#define ISA "simd128"
INLINE VF vf_fma(VF a, VF b, VF c) { return wasm_f32x4_add(wasm_f32x4_mul(a, b), c); }
INLINE VI dot8(VI acc, VI w, VI x) {
    VI even = wasm_i32x4_dot_i16x8(even_bytes(w), even_bytes(x));
    VI odd = wasm_i32x4_dot_i16x8(odd_bytes(w), odd_bytes(x));
    return wasm_i32x4_add(acc, wasm_i32x4_add(even, odd));
}
INLINE VI dot4(VI acc, VI w, VI x) { return dot8(acc, w, x); }
INLINE VI dot4_sum(VI acc) { return acc; }
#endif
