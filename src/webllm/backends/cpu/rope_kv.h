// Rotary embedding (arXiv:2104.09864), and the paged KV cache (arXiv:2309.06180) that it writes.
//
// The KV cache is [block, layer, kv head]; each entry holds K transposed, [head_dim][16 positions],
// then V, [16 positions][head_dim].

#pragma once
#include "ops.h"
#include "simd.h"

#define BLOCK 16
#define MAX_HEAD_DIM 512

// -------------------------------------------------------------------------------------- KV cache

INLINE KV *kv_entry(const Step *step, uint32_t block, uint32_t layer, uint32_t head) {
    const Plan *plan = step->plan;
    size_t entry = ((size_t)block * plan->num_layers + layer) * plan->kv_heads + head;
    return AT(KV, plan->kv) + entry * 2 * BLOCK * plan->head_dim;
}

static void kv_store(KV *entry, uint32_t slot, uint32_t head_dim, const float *k, const float *v) {
    KV column[MAX_HEAD_DIM];
    for (uint32_t i = 0; i < head_dim; i += LANES) vf_store_kv(column + i, vf_load(k + i));
    for (uint32_t i = 0; i < head_dim; i++) entry[i * BLOCK + slot] = column[i];
    KV *row = entry + (size_t)BLOCK * head_dim + (size_t)slot * head_dim;
    for (uint32_t i = 0; i < head_dim; i += LANES) vf_store_kv(row + i, vf_load(v + i));
}

// ------------------------------------------------------------------------------------- rotary

static float inverse_rms(const float *x, uint32_t cols, float eps) {
    VF total[2] = {vf_splat(0.0f), vf_splat(0.0f)};
    for (uint32_t i = 0; i < cols; i += LANES) {
        VF a = vf_load(x + i);
        total[i / LANES % 2] = vf_fma(a, a, total[i / LANES % 2]);
    }
    float mean = vf_reduce_add(vf_add(total[0], total[1])) / (float)cols;
    return 1.0f / __builtin_sqrtf(mean + eps);
}

static void normalize_head(float *x, Address gamma, uint32_t head_dim, float eps) {
    if (!gamma) return;
    VF r = vf_splat(inverse_rms(x, head_dim, eps));
    for (uint32_t i = 0; i < head_dim; i += LANES) {
        vf_store(x + i, vf_mul(vf_mul(vf_load(x + i), r), vf_load(AT(float, gamma) + i)));
    }
}

// The position's unit complex numbers: the product of one row of each table (see RopeTable).
static void rope_angles(float *angles, const RopeOp *op, uint32_t position) {
    const float *fine = AT(float, op->fine) + (size_t)(position % 256) * op->rope_dim;
    const float *coarse = AT(float, op->coarse) + (size_t)(position / 256) * op->rope_dim;
    for (uint32_t i = 0; i < op->rope_dim; i += 2) {
        angles[i] = fine[i] * coarse[i] - fine[i + 1] * coarse[i + 1];
        angles[i + 1] = fine[i] * coarse[i + 1] + fine[i + 1] * coarse[i];
    }
}

static void rotate(float *x, const float *angles, uint32_t rope_dim) {
    for (uint32_t i = 0; i < rope_dim; i += 2) {
        float real = x[i] * angles[i] - x[i + 1] * angles[i + 1];
        x[i + 1] = x[i] * angles[i + 1] + x[i + 1] * angles[i];
        x[i] = real;
    }
}

static void rope_kv_token(const Step *step, const RopeOp *op, uint32_t token) {
    uint32_t dim = op->head_dim, heads = op->num_q + op->num_kv;
    float *q = AT(float, op->qkv) + (size_t)token * (heads + op->num_kv) * dim;
    const float *k = q + (size_t)op->num_q * dim, *v = k + (size_t)op->num_kv * dim;
    float angles[MAX_HEAD_DIM];
    rope_angles(angles, op, SECTION(step, positions)[token]);
    for (uint32_t h = 0; h < heads; h++) {
        normalize_head(q + h * dim, h < op->num_q ? op->q_gamma : op->k_gamma, dim, op->eps);
        rotate(q + h * dim, angles, op->rope_dim);
    }
    uint32_t slot = SECTION(step, slot_mapping)[token];
    for (uint32_t h = 0; h < op->num_kv; h++) {
        KV *entry = kv_entry(step, slot / BLOCK, op->layer, h);
        kv_store(entry, slot % BLOCK, dim, k + h * dim, v + h * dim);
    }
}
