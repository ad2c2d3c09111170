// AVX-512 with VNNI; simd.h explains the names.

#pragma once
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
INLINE int vi_reduce_add(VI a) {  // _mm512_reduce_add_epi32 ends in a sum of ints
    __m256i b = _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti64x4_epi64(a, 1));
    __m128i c = _mm_add_epi32(_mm256_castsi256_si128(b), _mm256_extracti128_si256(b, 1));
    c = _mm_add_epi32(c, _mm_shuffle_epi32(c, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(c, _mm_shuffle_epi32(c, 0xb1)));
}
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
