// The compiler's vector extensions, for any other target; simd.h explains the names.

#pragma once
#define ISA "baseline"
#define LANES 4
#define TILE_TOKENS 4
#define TILE_VECTORS 1
#define DOT8_OFFSET 0
#define KV_F16 0
typedef float VF __attribute__((vector_size(16)));
typedef int32_t VI __attribute__((vector_size(16)));
typedef uint32_t VU __attribute__((vector_size(16)));  // sums of it wrap
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
INLINE VI vf_round(VF a) { return (VI)((VU)(a + 0x1.8p23f) - 0x4b400000u); }
INLINE VF vf_scale2(VF a, VI n) { return (VF)((VU)a + ((VU)n << 23)); }

INLINE VI vi_zero(void) { return (VI){0}; }
INLINE VI vi_add(VI a, VI b) { return (VI)((VU)a + (VU)b); }
INLINE int vi_reduce_add(VI a) {
    VU b = (VU)a;
    return (int)(b[0] + b[1] + b[2] + b[3]);
}
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
