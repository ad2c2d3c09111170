// Rotary embedding, the paged KV cache and attention over it.
//
// The cache is [block, layer, kv head]; each entry holds K transposed, [head_dim][16 positions],
// then V, [16 positions][head_dim].
//
// Attention takes the queries of a tile that share a kv head as rows of one small matrix and goes
// over their context in chunks with a running softmax (arXiv:2205.14135). When there are few
// queries, the context is also split into spans, whose results are put together at the end
// (arXiv:2311.01282). The split follows from the batch alone, so results do not depend on the
// number of threads.

#pragma once
#include "matmul.h"
#include "ops.h"
#include "threads.h"

#define BLOCK 16
#define CHUNK 64
#define CHUNK_BLOCKS (CHUNK / BLOCK)
#define MAX_ROWS 32
#define MAX_HEAD_DIM 512
#define MAX_SPANS 16
#define SPAN_POSITIONS 256  // shortest span worth its overhead
#define SPLIT_TOKENS 8      // batches up to this size are split into spans
#define MASKED -1e30f

// -------------------------------------------------------------------------------------- cache

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

// The position's unit complex numbers: one row of each table, multiplied.
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
    uint32_t slot = SECTION(step, slots)[token];
    for (uint32_t h = 0; h < op->num_kv; h++) {
        KV *entry = kv_entry(step, slot / BLOCK, op->layer, h);
        kv_store(entry, slot % BLOCK, dim, k + h * dim, v + h * dim);
    }
}

// ----------------------------------------------------------------------- tiles of a small matrix

#if LANES == 16
#define SCORE_BLOCKS 2  // blocks whose scores one tile computes
#define VALUE_VECTORS 4
#define ROW_TILE 4
#elif LANES == 8
#define SCORE_BLOCKS 1
#define VALUE_VECTORS 2
#define ROW_TILE 4
#else
#define SCORE_BLOCKS 1
#define VALUE_VECTORS 4
#define ROW_TILE 2
#endif
#define SCORE_VECTORS (SCORE_BLOCKS * BLOCK / LANES)

// scores[r][0 .. SCORE_BLOCKS * 16) = q[r] @ k
INLINE void score_tile(const int R, const float *q, uint32_t dim, const KV *const *blocks,
                       float *scores) {
    VF acc[ROW_TILE * SCORE_VECTORS];
    UNROLL for (int i = 0; i < R * SCORE_VECTORS; i++) acc[i] = vf_splat(0.0f);
    for (uint32_t d = 0; d < dim; d++) {
        VF k[SCORE_VECTORS];
        UNROLL for (int v = 0; v < SCORE_VECTORS; v++) {
            k[v] = vf_load_kv(blocks[v * LANES / BLOCK] + d * BLOCK + v * LANES % BLOCK);
        }
        UNROLL for (int r = 0; r < R; r++) {
            VF a = vf_splat(q[(uint32_t)r * dim + d]);
            UNROLL for (int v = 0; v < SCORE_VECTORS; v++) {
                acc[r * SCORE_VECTORS + v] = vf_fma(a, k[v], acc[r * SCORE_VECTORS + v]);
            }
        }
    }
    UNROLL for (int i = 0; i < R * SCORE_VECTORS; i++) {
        vf_store(scores + i / SCORE_VECTORS * CHUNK + i % SCORE_VECTORS * LANES, acc[i]);
    }
}

// out[r][d .. d + V * LANES) = out * decay[r] + p[r] @ v
INLINE void value_tile(const int R, const int V, const float *p, const float *decay,
                       const KV *const *blocks, uint32_t positions, uint32_t dim, uint32_t d,
                       float *out) {
    VF acc[ROW_TILE * VALUE_VECTORS];
    UNROLL for (int i = 0; i < R * V; i++) {
        const float *at = out + (uint32_t)(i / V) * dim + d + i % V * LANES;
        acc[i] = vf_mul(vf_load(at), vf_splat(decay[i / V]));
    }
    for (uint32_t j = 0; j < positions; j++) {
        const KV *row = blocks[j / BLOCK] + (BLOCK + j % BLOCK) * dim + d;
        VF value[VALUE_VECTORS];
        UNROLL for (int v = 0; v < V; v++) value[v] = vf_load_kv(row + v * LANES);
        UNROLL for (int r = 0; r < R; r++) {
            VF a = vf_splat(p[r * CHUNK + (int)j]);
            UNROLL for (int v = 0; v < V; v++) acc[r * V + v] = vf_fma(a, value[v], acc[r * V + v]);
        }
    }
    UNROLL for (int i = 0; i < R * V; i++) {
        vf_store(out + (uint32_t)(i / V) * dim + d + i % V * LANES, acc[i]);
    }
}

INLINE void score_rows(const int R, const float *q, uint32_t dim, const KV *const *blocks,
                       float *scores) {
    for (int b = 0; b < CHUNK_BLOCKS; b += SCORE_BLOCKS) {
        score_tile(R, q, dim, blocks + b, scores + b * BLOCK);
    }
}

INLINE void value_rows(const int R, const float *p, const float *decay, const KV *const *blocks,
                       uint32_t positions, uint32_t dim, float *out) {
    uint32_t d = 0;
    for (; d + VALUE_VECTORS * LANES <= dim; d += VALUE_VECTORS * LANES) {
        value_tile(R, VALUE_VECTORS, p, decay, blocks, positions, dim, d, out);
    }
    for (; d < dim; d += LANES) value_tile(R, 1, p, decay, blocks, positions, dim, d, out);
}

// --------------------------------------------------------------------------------- one work item

typedef struct {
    uint32_t num_rows, dim;
    float q[MAX_ROWS * MAX_HEAD_DIM];    // [rows, dim], scaled
    float out[MAX_ROWS * MAX_HEAD_DIM];  // [rows, dim], not yet divided by `total`
    float scores[MAX_ROWS * CHUNK];
    float top[MAX_ROWS], total[MAX_ROWS], decay[MAX_ROWS];
    uint32_t begin[MAX_ROWS], end[MAX_ROWS];  // positions each row sees
} Rows;

// Where an item's rows come from: `count` queries times `heads` q heads of one kv head.
typedef struct {
    const QueryTile *tile;
    uint32_t kv_head, first_head, heads, span;
} Item;

INLINE uint32_t heads_together(const AttentionOp *op) {
    uint32_t group = op->num_q / op->num_kv;
    return group < MAX_ROWS ? group : MAX_ROWS;
}

INLINE uint32_t slices_per_kv_head(const AttentionOp *op) {
    uint32_t together = heads_together(op);
    return (op->num_q / op->num_kv + together - 1) / together;
}

INLINE uint32_t parts_per_tile(const Step *step, const AttentionOp *op) {
    return op->num_kv * slices_per_kv_head(op) * step->num_spans;
}

static Item attention_item(const Step *step, const AttentionOp *op, uint32_t index) {
    uint32_t parts = parts_per_tile(step, op), slices = slices_per_kv_head(op);
    uint32_t group = op->num_q / op->num_kv, together = heads_together(op);
    uint32_t part = index % parts, slice = part / step->num_spans;
    uint32_t offset = slice % slices * together;
    Item item = {.tile = &step->query_tiles[index / parts], .span = part % step->num_spans};
    item.kv_head = slice / slices;
    item.first_head = item.kv_head * group + offset;
    item.heads = group - offset < together ? group - offset : together;
    return item;
}

static void load_rows(Rows *rows, const Step *step, const AttentionOp *op, const Item *item) {
    uint32_t dim = op->head_dim, row_cols = (op->num_q + 2 * op->num_kv) * dim;
    rows->num_rows = item->tile->count * item->heads;
    rows->dim = dim;
    for (uint32_t r = 0; r < rows->num_rows; r++) {
        uint32_t token = item->tile->first + r / item->heads, head = item->first_head + r % item->heads;
        uint32_t position = SECTION(step, positions)[token];
        const float *q = AT(float, op->qkv) + (size_t)token * row_cols + (size_t)head * dim;
        for (uint32_t i = 0; i < dim; i += LANES) {
            vf_store(rows->q + r * dim + i, vf_mul(vf_load(q + i), vf_splat(op->scale)));
            vf_store(rows->out + r * dim + i, vf_splat(0.0f));
        }
        rows->top[r] = MASKED;
        rows->total[r] = 0.0f;
        rows->end[r] = position + 1;
        rows->begin[r] = op->window && position >= op->window ? position + 1 - op->window : 0;
    }
}

// Scores of one row become weights; its running maximum and total follow.
static void soften_row(Rows *rows, uint32_t r, uint32_t chunk, uint32_t positions) {
    float *s = rows->scores + r * CHUNK;
    uint32_t begin = rows->begin[r] > chunk ? rows->begin[r] - chunk : 0;
    uint32_t end = rows->end[r] > chunk ? rows->end[r] - chunk : 0;
    if (end > positions) end = positions;
    rows->decay[r] = 1.0f;
    if (begin >= end) {
        memset(s, 0, CHUNK * sizeof *s);
        return;
    }
    for (uint32_t j = 0; j < begin; j++) s[j] = MASKED;
    for (uint32_t j = end; j < CHUNK; j++) s[j] = MASKED;
    VF top = vf_splat(rows->top[r]), total = vf_splat(0.0f);
    UNROLL for (int j = 0; j < CHUNK; j += LANES) top = vf_max(top, vf_load(s + j));
    top = vf_splat(vf_reduce_max(top));
    UNROLL for (int j = 0; j < CHUNK; j += LANES) {
        VF p = vf_exp(vf_add(vf_load(s + j), vf_mul(top, vf_splat(-1.0f))));
        vf_store(s + j, p);
        total = vf_add(total, p);
    }
    float decay[LANES], newest[LANES];
    vf_store(newest, top);
    vf_store(decay, vf_exp(vf_add(vf_splat(rows->top[r]), vf_splat(-newest[0]))));
    rows->decay[r] = decay[0];
    rows->total[r] = rows->total[r] * decay[0] + vf_reduce_add(total);
    rows->top[r] = newest[0];
}

static void attend_chunk(Rows *rows, const KV *const *blocks, uint32_t chunk, uint32_t positions) {
    uint32_t dim = rows->dim, num_rows = rows->num_rows;
    for (uint32_t r = 0; r < num_rows; r += ROW_TILE) {
        const float *q = rows->q + r * dim;
        float *s = rows->scores + r * CHUNK;
        switch (num_rows - r) {
            case 1: score_rows(1, q, dim, blocks, s); break;
#if ROW_TILE == 4
            case 2: score_rows(2, q, dim, blocks, s); break;
            case 3: score_rows(3, q, dim, blocks, s); break;
#endif
            default: score_rows(ROW_TILE, q, dim, blocks, s);
        }
    }
    for (uint32_t r = 0; r < num_rows; r++) soften_row(rows, r, chunk, positions);
    for (uint32_t r = 0; r < num_rows; r += ROW_TILE) {
        const float *p = rows->scores + r * CHUNK, *decay = rows->decay + r;
        float *out = rows->out + r * dim;
        switch (num_rows - r) {
            case 1: value_rows(1, p, decay, blocks, positions, dim, out); break;
#if ROW_TILE == 4
            case 2: value_rows(2, p, decay, blocks, positions, dim, out); break;
            case 3: value_rows(3, p, decay, blocks, positions, dim, out); break;
#endif
            default: value_rows(ROW_TILE, p, decay, blocks, positions, dim, out);
        }
    }
}

// The chunks of this item's span, as positions [from, to).
static void span_range(const Step *step, const Rows *rows, uint32_t span, uint32_t *from,
                       uint32_t *to) {
    uint32_t first = rows->begin[0] / CHUNK, last = (rows->end[rows->num_rows - 1] - 1) / CHUNK + 1;
    uint32_t each = (last - first + step->num_spans - 1) / step->num_spans;
    *from = (first + span * each) * CHUNK;
    *to = (first + (span + 1) * each) * CHUNK;
    uint32_t end = rows->end[rows->num_rows - 1];
    if (*to > end) *to = end;
}

static void attend_span(Rows *rows, const Step *step, const AttentionOp *op, const Item *item) {
    const uint32_t *table =
        SECTION(step, block_tables) + (size_t)item->tile->seq * step->plan->layout.max_blocks;
    uint32_t from, to;
    span_range(step, rows, item->span, &from, &to);
    for (uint32_t chunk = from; chunk < to; chunk += CHUNK) {
        uint32_t positions = to - chunk < CHUNK ? to - chunk : CHUNK;
        const KV *blocks[CHUNK_BLOCKS];
        for (uint32_t b = 0; b < CHUNK_BLOCKS; b++) {  // past the end: any block, it is masked
            uint32_t used = b * BLOCK < positions ? b : (positions - 1) / BLOCK;
            blocks[b] = kv_entry(step, table[chunk / BLOCK + used], op->layer, item->kv_head);
        }
        attend_chunk(rows, blocks, chunk, positions);
    }
}

// ------------------------------------------------------------------------------ putting together

// partial: outputs f32 [tokens, spans, num_q * dim], then (top, total) f32 [tokens, spans, num_q, 2]
INLINE float *partial_out(const Step *step, const AttentionOp *op, uint32_t token, uint32_t span) {
    size_t row = (size_t)token * step->num_spans + span;
    return AT(float, op->partial) + row * op->num_q * op->head_dim;
}
INLINE float *partial_top(const Step *step, const AttentionOp *op, uint32_t token, uint32_t span) {
    size_t rows = (size_t)step->num_tokens * step->num_spans;
    size_t row = (size_t)token * step->num_spans + span;
    return AT(float, op->partial) + rows * op->num_q * op->head_dim + row * op->num_q * 2;
}

static void store_rows(const Rows *rows, const Step *step, const AttentionOp *op,
                       const Item *item) {
    for (uint32_t r = 0; r < rows->num_rows; r++) {
        uint32_t token = item->tile->first + r / item->heads, head = item->first_head + r % item->heads;
        float *out = partial_out(step, op, token, item->span) + (size_t)head * rows->dim;
        memcpy(out, rows->out + r * rows->dim, rows->dim * sizeof *out);
        float *top = partial_top(step, op, token, item->span) + 2 * head;
        top[0] = rows->top[r];
        top[1] = rows->total[r];
    }
}

static void combine_head(const Step *step, const AttentionOp *op, uint32_t token, uint32_t head) {
    uint32_t dim = op->head_dim;
    float weights[MAX_SPANS + LANES] = {0}, top = MASKED, total = 0.0f;
    for (uint32_t s = 0; s < step->num_spans; s++) {
        weights[s] = partial_top(step, op, token, s)[2 * head];
        top = weights[s] > top ? weights[s] : top;
    }
    for (uint32_t s = 0; s < step->num_spans; s += LANES) {
        vf_store(weights + s, vf_exp(vf_add(vf_load(weights + s), vf_splat(-top))));
    }
    for (uint32_t s = 0; s < step->num_spans; s++) {
        total += weights[s] * partial_top(step, op, token, s)[2 * head + 1];
    }
    float *out = partial_out(step, op, token, 0) + (size_t)head * dim;
    size_t span_cols = (size_t)op->num_q * dim;
    for (uint32_t i = 0; i < dim; i += LANES) {
        VF acc = vf_splat(0.0f);
        for (uint32_t s = 0; s < step->num_spans; s++) {
            acc = vf_fma(vf_load(out + s * span_cols + i), vf_splat(weights[s] / total), acc);
        }
        vf_store(out + i, acc);
    }
}

static void finish_tile(const Step *step, const AttentionOp *op, const QueryTile *tile) {
    uint32_t cols = op->num_q * op->head_dim;
    for (uint32_t token = tile->first; token < tile->first + tile->count; token++) {
        for (uint32_t head = 0; head < op->num_q; head++) combine_head(step, op, token, head);
        uint8_t *out = AT(uint8_t, op->out) + token * row_bytes(op->encoding, cols);
        encode_row(out, op->encoding, cols, partial_out(step, op, token, 0));
    }
}

static void attend(const Step *step, const AttentionOp *op, uint32_t index) {
    Item item = attention_item(step, op, index);
    Rows rows;
    load_rows(&rows, step, op, &item);
    attend_span(&rows, step, op, &item);
    store_rows(&rows, step, op, &item);
    QueryTile *tile = &step->query_tiles[index / parts_per_tile(step, op)];
    if (atomic_add(&tile->finished, 1) + 1 == parts_per_tile(step, op)) {
        atomic_set(&tile->finished, 0);  // for the next layer
        finish_tile(step, op, tile);
    }
}

// -------------------------------------------------------------------------------- once per step

// Cuts the batch into query tiles: large ones in prefill, and enough of them for many threads.
static void plan_query_tiles(Step *step) {
    const uint32_t *starts = SECTION(step, query_starts);
    uint32_t longest = 1;
    for (uint32_t seq = 0; seq < step->num_seqs; seq++) {
        uint32_t len = starts[seq + 1] - starts[seq];
        uint32_t size = len * step->plan->kv_heads / 16;
        if (size < 1) size = 1;
        if (size > step->plan->tile_queries) size = step->plan->tile_queries;
        for (uint32_t i = 0; i < len; i += size) {
            uint32_t count = len - i < size ? len - i : size;
            step->query_tiles[step->num_query_tiles++] = (QueryTile){seq, starts[seq] + i, count, 0};
        }
        uint32_t context = SECTION(step, context_lens)[seq];
        longest = context > longest ? context : longest;
    }
    step->num_spans = 1;
    if (step->num_tokens <= SPLIT_TOKENS) {
        step->num_spans = (longest + SPAN_POSITIONS - 1) / SPAN_POSITIONS;
        if (step->num_spans > MAX_SPANS) step->num_spans = MAX_SPANS;
    }
}
