// Arm NEON with the dot product extension; simd.h explains the names.

#pragma once
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
