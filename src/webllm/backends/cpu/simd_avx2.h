// simd.h's primitives for AVX2, and for AVX-VNNI, which differs in dot4 and dot8.

#pragma once
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
#define DPBUSD _mm256_dpbusd_epi32  // in AVX-512's encoding: lets CPUs without AVX-VNNI test this
#endif
INLINE VI dot4(VI acc, VI w, VI x) { return DPBUSD(acc, w, x); }
INLINE VI dot4_sum(VI acc) { return acc; }
// DPBUSD wants unsigned w: w ^ 0x80 is w + 128, hence DOT8_OFFSET.
INLINE VI dot8(VI acc, VI w, VI x) {
    return DPBUSD(acc, _mm256_xor_si256(w, _mm256_set1_epi8((char)0x80)), x);
}
#else
#define ISA "avx2"
#define DOT8_OFFSET 0
// dot4 sums in 16 bits, which hold 8 of them: 8 * 2 * 15 * 127 < 2^15. dot8 uses 16 bits for one
// pair of products: 2 * 128 * 127 < 2^15.
INLINE VI dot4(VI acc, VI w, VI x) { return _mm256_add_epi16(acc, _mm256_maddubs_epi16(w, x)); }
INLINE VI dot4_sum(VI acc) { return _mm256_madd_epi16(acc, _mm256_set1_epi16(1)); }
INLINE VI dot8(VI acc, VI w, VI x) {
    VI pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
    return _mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#endif
