// Vector primitives, one section per instruction set; chosen by the compiler's target flags.
//
//   VF   LANES floats                    VI   LANES int32, or 4 * LANES bytes
//   dot4(acc, w, x)   acc += four-byte products per lane, w in 0..15 unsigned, x in -127..127
//   dot4_sum(acc)     the int32 sums of up to 8 dot4 (some sets add up in 16 bits until here)
//   dot8(acc, w, x)   the same for signed w, plus DOT8_OFFSET * sum(x), which the caller removes
//   KV                element type of the KV cache: f16 where loading it costs one instruction
//
// TILE_TOKENS x TILE_VECTORS is the matrix tile that fills the registers.

#pragma once
#include <stddef.h>
#include <stdint.h>
#if defined(__wasm__)  // there is no C library; kernels.c defines these two
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memset(void *to, int byte, size_t n);
#else
#include <string.h>
#endif

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define INLINE static inline __attribute__((always_inline))
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define CHUNK_LOOP UNROLL

#if defined(__AVX512VNNI__) && !defined(WEBLLM_256)
#include <immintrin.h>
#define ISA "avx512vnni"
#define LANES 16
#define TILE_TOKENS 8
#define TILE_VECTORS 1
#define DOT8_OFFSET 128
#define KV_F16 1
typedef __m512 VF;
typedef __m512i VI;

INLINE VF vf_splat(float a) { return _mm512_set1_ps(a); }
INLINE VF vf_load(const float *p) { return _mm512_loadu_ps(p); }
INLINE void vf_store(float *p, VF a) { _mm512_storeu_ps(p, a); }
INLINE VF vf_add(VF a, VF b) { return _mm512_add_ps(a, b); }
INLINE VF vf_mul(VF a, VF b) { return _mm512_mul_ps(a, b); }
INLINE VF vf_div(VF a, VF b) { return _mm512_div_ps(a, b); }
INLINE VF vf_max(VF a, VF b) { return _mm512_max_ps(a, b); }
INLINE VF vf_min(VF a, VF b) { return _mm512_min_ps(a, b); }
INLINE VF vf_abs(VF a) { return _mm512_abs_ps(a); }
INLINE VF vf_fma(VF a, VF b, VF c) { return _mm512_fmadd_ps(a, b, c); }
INLINE VF vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const void *)p));
}
INLINE void vf_store_f16(uint16_t *p, VF a) {
    _mm256_storeu_si256((void *)p, _mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
INLINE VF vf_load_bf16(const uint16_t *p) {
    VI a = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(a, 16));
}
INLINE float vf_reduce_add(VF a) { return _mm512_reduce_add_ps(a); }
INLINE float vf_reduce_max(VF a) { return _mm512_reduce_max_ps(a); }
INLINE VI vf_round(VF a) { return _mm512_cvtps_epi32(a); }
INLINE VF vf_scale2(VF a, VI n) { return _mm512_scalef_ps(a, _mm512_cvtepi32_ps(n)); }

INLINE VI vi_zero(void) { return _mm512_setzero_si512(); }
INLINE VI vi_add(VI a, VI b) { return _mm512_add_epi32(a, b); }
INLINE int vi_reduce_add(VI a) { return _mm512_reduce_add_epi32(a); }
INLINE VF vi_to_f(VI a) { return _mm512_cvtepi32_ps(a); }
INLINE void vi_store_i8(int8_t *p, VI a) {
    _mm_storeu_si128((void *)p, _mm512_cvtsepi32_epi8(a));
}
INLINE VI vi_load(const void *p) { return _mm512_loadu_si512(p); }
INLINE VI vi_splat4(const void *p) {
    int a;
    memcpy(&a, p, 4);
    return _mm512_set1_epi32(a);
}
INLINE VI vi_low(VI a) { return _mm512_and_si512(a, _mm512_set1_epi8(15)); }
INLINE VI vi_high(VI a) { return vi_low(_mm512_srli_epi16(a, 4)); }
INLINE VI dot4(VI acc, VI w, VI x) { return _mm512_dpbusd_epi32(acc, w, x); }
INLINE VI dot4_sum(VI acc) { return acc; }
INLINE VI dot8(VI acc, VI w, VI x) {
    return _mm512_dpbusd_epi32(acc, _mm512_xor_si512(w, _mm512_set1_epi8((char)0x80)), x);
}

#elif defined(__AVX2__)
#include <immintrin.h>
#define LANES 8
#define TILE_TOKENS 4
#define TILE_VECTORS 2
#define KV_F16 1
typedef __m256 VF;
typedef __m256i VI;

INLINE VF vf_splat(float a) { return _mm256_set1_ps(a); }
INLINE VF vf_load(const float *p) { return _mm256_loadu_ps(p); }
INLINE void vf_store(float *p, VF a) { _mm256_storeu_ps(p, a); }
INLINE VF vf_add(VF a, VF b) { return _mm256_add_ps(a, b); }
INLINE VF vf_mul(VF a, VF b) { return _mm256_mul_ps(a, b); }
INLINE VF vf_div(VF a, VF b) { return _mm256_div_ps(a, b); }
INLINE VF vf_max(VF a, VF b) { return _mm256_max_ps(a, b); }
INLINE VF vf_min(VF a, VF b) { return _mm256_min_ps(a, b); }
INLINE VF vf_abs(VF a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
INLINE VF vf_fma(VF a, VF b, VF c) { return _mm256_fmadd_ps(a, b, c); }
INLINE VF vf_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const void *)p));
}
INLINE void vf_store_f16(uint16_t *p, VF a) {
    _mm_storeu_si128((void *)p, _mm256_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT));
}
INLINE VF vf_load_bf16(const uint16_t *p) {
    VI a = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(a, 16));
}
INLINE float vf_reduce_add(VF a) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
INLINE float vf_reduce_max(VF a) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}
INLINE VI vf_round(VF a) { return _mm256_cvtps_epi32(a); }
INLINE VF vf_scale2(VF a, VI n) {
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), _mm256_slli_epi32(n, 23)));
}

INLINE VI vi_zero(void) { return _mm256_setzero_si256(); }
INLINE VI vi_add(VI a, VI b) { return _mm256_add_epi32(a, b); }
INLINE int vi_reduce_add(VI a) {
    __m128i b = _mm_add_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    b = _mm_add_epi32(b, _mm_shuffle_epi32(b, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(b, _mm_shuffle_epi32(b, 0xb1)));
}
INLINE VF vi_to_f(VI a) { return _mm256_cvtepi32_ps(a); }
INLINE void vi_store_i8(int8_t *p, VI a) {
    __m128i b = _mm_packs_epi32(_mm256_castsi256_si128(a), _mm256_extracti128_si256(a, 1));
    _mm_storel_epi64((void *)p, _mm_packs_epi16(b, b));
}
INLINE VI vi_load(const void *p) { return _mm256_loadu_si256(p); }
INLINE VI vi_splat4(const void *p) {
    int a;
    memcpy(&a, p, 4);
    return _mm256_set1_epi32(a);
}
INLINE VI vi_low(VI a) { return _mm256_and_si256(a, _mm256_set1_epi8(15)); }
INLINE VI vi_high(VI a) { return vi_low(_mm256_srli_epi16(a, 4)); }

#if defined(__AVXVNNI__) || defined(__AVX512VNNI__)
#define ISA "avxvnni"
#define DOT8_OFFSET 128
#if defined(__AVXVNNI__)
#define DPBUSD _mm256_dpbusd_avx_epi32
#else
#define DPBUSD _mm256_dpbusd_epi32  // the same instruction in AVX-512's encoding: to test this section
#endif
INLINE VI dot4(VI acc, VI w, VI x) { return DPBUSD(acc, w, x); }
INLINE VI dot4_sum(VI acc) { return acc; }
INLINE VI dot8(VI acc, VI w, VI x) {
    return DPBUSD(acc, _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80)), x);
}
#else
#define ISA "avx2"
#define DOT8_OFFSET 0
// 16-bit sums hold 8 dot4: 8 * 2 * 15 * 127 < 2^15. One dot8 fits as well: 2 * 128 * 127.
INLINE VI dot4(VI acc, VI w, VI x) { return _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)); }
INLINE VI dot4_sum(VI acc) { return _mm256_madd_epi16(acc, _mm256_set1_epi16(1)); }
INLINE VI dot8(VI acc, VI w, VI x) {
    VI pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif

#elif defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define ISA "dotprod"
#define LANES 4
#define TILE_TOKENS 4
#define TILE_VECTORS 2
#define DOT8_OFFSET 0
#define KV_F16 1
typedef float32x4_t VF;
typedef int32x4_t VI;

INLINE VF vf_splat(float a) { return vdupq_n_f32(a); }
INLINE VF vf_load(const float *p) { return vld1q_f32(p); }
INLINE void vf_store(float *p, VF a) { vst1q_f32(p, a); }
INLINE VF vf_add(VF a, VF b) { return vaddq_f32(a, b); }
INLINE VF vf_mul(VF a, VF b) { return vmulq_f32(a, b); }
INLINE VF vf_div(VF a, VF b) { return vdivq_f32(a, b); }
INLINE VF vf_max(VF a, VF b) { return vmaxq_f32(a, b); }
INLINE VF vf_min(VF a, VF b) { return vminq_f32(a, b); }
INLINE VF vf_abs(VF a) { return vabsq_f32(a); }
INLINE VF vf_fma(VF a, VF b, VF c) { return vfmaq_f32(c, a, b); }
INLINE VF vf_load_f16(const uint16_t *p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}
INLINE void vf_store_f16(uint16_t *p, VF a) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(a)));
}
INLINE VF vf_load_bf16(const uint16_t *p) {
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}
INLINE float vf_reduce_add(VF a) { return vaddvq_f32(a); }
INLINE float vf_reduce_max(VF a) { return vmaxvq_f32(a); }
INLINE VI vf_round(VF a) { return vcvtnq_s32_f32(a); }
INLINE VF vf_scale2(VF a, VI n) {
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(a), vshlq_n_s32(n, 23)));
}

INLINE VI vi_zero(void) { return vdupq_n_s32(0); }
INLINE VI vi_add(VI a, VI b) { return vaddq_s32(a, b); }
INLINE int vi_reduce_add(VI a) { return vaddvq_s32(a); }
INLINE VF vi_to_f(VI a) { return vcvtq_f32_s32(a); }
INLINE void vi_store_i8(int8_t *p, VI a) {
    int16x4_t b = vqmovn_s32(a);
    vst1_lane_s32((void *)p, vreinterpret_s32_s8(vqmovn_s16(vcombine_s16(b, b))), 0);
}
INLINE VI vi_load(const void *p) { return vreinterpretq_s32_s8(vld1q_s8(p)); }
INLINE VI vi_splat4(const void *p) { return vld1q_dup_s32(p); }
INLINE VI vi_low(VI a) { return vandq_s32(a, vdupq_n_s32(0x0f0f0f0f)); }
INLINE VI vi_high(VI a) {
    return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(a), 4));
}
INLINE VI dot8(VI acc, VI w, VI x) {
    return vdotq_s32(acc, vreinterpretq_s8_s32(w), vreinterpretq_s8_s32(x));
}
INLINE VI dot4(VI acc, VI w, VI x) { return dot8(acc, w, x); }
INLINE VI dot4_sum(VI acc) { return acc; }

#elif defined(__wasm_simd128__)
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
    return wasm_i32x4_extract_lane(a, 0) + wasm_i32x4_extract_lane(a, 1);
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

#else  // any other target: the compiler's own vectors
#define ISA "baseline"
#define LANES 4
#define TILE_TOKENS 4
#define TILE_VECTORS 1
#define DOT8_OFFSET 0
#define KV_F16 0
typedef float VF __attribute__((vector_size(16)));
typedef int32_t VI __attribute__((vector_size(16)));
typedef int16_t VShort __attribute__((vector_size(16)));

#define EACH for (int i = 0; i < LANES; i++)
INLINE VF vf_splat(float a) { return (VF){a, a, a, a}; }
INLINE VF vf_load(const float *p) {
    VF a;
    memcpy(&a, p, sizeof a);
    return a;
}
INLINE void vf_store(float *p, VF a) { memcpy(p, &a, sizeof a); }
INLINE VF vf_add(VF a, VF b) { return a + b; }
INLINE VF vf_mul(VF a, VF b) { return a * b; }
INLINE VF vf_div(VF a, VF b) { return a / b; }
INLINE VF vf_max(VF a, VF b) {
    EACH a[i] = a[i] > b[i] ? a[i] : b[i];
    return a;
}
INLINE VF vf_min(VF a, VF b) {
    EACH a[i] = a[i] < b[i] ? a[i] : b[i];
    return a;
}
INLINE VF vf_abs(VF a) { return (VF)((VI)a & 0x7fffffff); }
INLINE VF vf_fma(VF a, VF b, VF c) { return a * b + c; }
INLINE VF vf_load_f16(const uint16_t *p) {  // exact for every finite half
    VI a = {(int16_t)p[0], (int16_t)p[1], (int16_t)p[2], (int16_t)p[3]};
    return (VF)((a << 13) & (int)0x8fffe000) * 0x1p112f;
}
INLINE VF vf_load_bf16(const uint16_t *p) { return (VF)((VI){p[0], p[1], p[2], p[3]} << 16); }
INLINE float vf_reduce_add(VF a) { return (a[0] + a[2]) + (a[1] + a[3]); }
INLINE float vf_reduce_max(VF a) {
    float b = a[0] > a[1] ? a[0] : a[1], c = a[2] > a[3] ? a[2] : a[3];
    return b > c ? b : c;
}
INLINE VI vf_round(VF a) { return (VI)(a + 0x1.8p23f) - 0x4b400000; }
INLINE VF vf_scale2(VF a, VI n) { return (VF)((VI)a + (n << 23)); }

INLINE VI vi_zero(void) { return (VI){0}; }
INLINE VI vi_add(VI a, VI b) { return a + b; }
INLINE int vi_reduce_add(VI a) { return a[0] + a[1] + a[2] + a[3]; }
INLINE VF vi_to_f(VI a) { return (VF){a[0], a[1], a[2], a[3]}; }
INLINE void vi_store_i8(int8_t *p, VI a) { EACH p[i] = (int8_t)a[i]; }
INLINE VI vi_load(const void *p) {
    VI a;
    memcpy(&a, p, sizeof a);
    return a;
}
INLINE VI vi_splat4(const void *p) {
    int32_t a;
    memcpy(&a, p, 4);
    return (VI){a, a, a, a};
}
INLINE VI vi_low(VI a) { return a & 0x0f0f0f0f; }
INLINE VI vi_high(VI a) { return (a >> 4) & 0x0f0f0f0f; }
INLINE VI dot8(VI acc, VI w, VI x) {
    VShort even = (((VShort)w << 8) >> 8), odd = (VShort)w >> 8;
    VShort x_even = (((VShort)x << 8) >> 8), x_odd = (VShort)x >> 8;
    VShort a = even * x_even, b = odd * x_odd;  // each within +-128 * 127
    EACH acc[i] += (int)a[2 * i] + a[2 * i + 1] + b[2 * i] + b[2 * i + 1];
    return acc;
}
INLINE VI dot4(VI acc, VI w, VI x) { return dot8(acc, w, x); }
INLINE VI dot4_sum(VI acc) { return acc; }
#endif

// ------------------------------------------------------------------ on top of the primitives

#define PANEL 16                       // rows of a weight that lie interleaved
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

// exp(x), x limited to +-87; relative error below 2^-22 (minimax polynomial of 2^f, |f| <= 1/2)
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
