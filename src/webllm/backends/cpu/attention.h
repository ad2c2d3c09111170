// Attention over the paged KV cache.
//
// The queries of a tile that share a KV head are the rows of one small matrix. It reads their
// context in chunks with a running softmax, as FlashAttention does (arXiv:2205.14135). Chunks are
// grouped into splits of the context; each split has a softmax of its own, and the splits are
// merged in order, as in Flash-Decoding (arXiv:2311.01282). With few queries, every split is a work
// item of its own. The borders of splits depend on the plan alone and the arithmetic is the same
// either way, so a query's result depends on neither the batch nor the number of threads.

#pragma once
#include "matmul.h"
#include "ops.h"
#include "rope_kv.h"
#include "threads.h"

#define CHUNK 64
#define CHUNK_BLOCKS (CHUNK / BLOCK)
#define MAX_ROWS 32
#define MAX_SPLITS 16
#define MIN_SPLIT_POSITIONS 256  // a shorter split costs more to merge than it saves
#define SPLIT_TOKENS 8           // in batches up to this size every split is a work item
#define MASKED -1e30f

// ----------------------------------------------------------------------- tiles of a small matrix

#if LANES == 16
#define SCORE_BLOCKS 2  // KV blocks whose scores one tile computes
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

// out[r][d .. d + V * LANES) = out * rescale[r] + p[r] @ v
INLINE void value_tile(const int R, const int V, const float *p, const float *rescale,
                       const KV *const *blocks, uint32_t positions, uint32_t dim, uint32_t d,
                       float *out) {
    VF acc[ROW_TILE * VALUE_VECTORS];
    UNROLL for (int i = 0; i < R * V; i++) {
        const float *at = out + (uint32_t)(i / V) * dim + d + i % V * LANES;
        acc[i] = vf_mul(vf_load(at), vf_splat(rescale[i / V]));
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

INLINE void value_rows(const int R, const float *p, const float *rescale, const KV *const *blocks,
                       uint32_t positions, uint32_t dim, float *out) {
    uint32_t d = 0;
    for (; d + VALUE_VECTORS * LANES <= dim; d += VALUE_VECTORS * LANES) {
        value_tile(R, VALUE_VECTORS, p, rescale, blocks, positions, dim, d, out);
    }
    for (; d < dim; d += LANES) value_tile(R, 1, p, rescale, blocks, positions, dim, d, out);
}

// --------------------------------------------------------------------------------- one work item

typedef struct {
    uint32_t num_rows, dim;
    float q[MAX_ROWS * MAX_HEAD_DIM];    // [rows, dim], scaled
    float out[MAX_ROWS * MAX_HEAD_DIM];  // [rows, dim] of one split, not yet divided by `sum`
    float scores[MAX_ROWS * CHUNK];
    float max[MAX_ROWS], sum[MAX_ROWS], rescale[MAX_ROWS];
    uint32_t begin[MAX_ROWS], end[MAX_ROWS];  // positions that each row attends to
    // The splits so far, merged.
    float merged_out[MAX_ROWS * MAX_HEAD_DIM], merged_max[MAX_ROWS], merged_sum[MAX_ROWS];
} Rows;

// A work item: the tile's queries times `heads` q heads, from `first_head` on, of one KV head.
typedef struct {
    const QueryTile *tile;
    uint32_t kv_head, first_head, heads, split;
} Item;

INLINE uint32_t heads_per_item(const AttentionOp *op) {
    uint32_t group = op->num_q / op->num_kv;
    return group < MAX_ROWS ? group : MAX_ROWS;
}

INLINE uint32_t slices_per_kv_head(const AttentionOp *op) {
    uint32_t together = heads_per_item(op);
    return (op->num_q / op->num_kv + together - 1) / together;
}

INLINE uint32_t items_per_tile(const Step *step, const AttentionOp *op) {
    return op->num_kv * slices_per_kv_head(op) * step->num_splits;
}

static Item attention_item(const Step *step, const AttentionOp *op, uint32_t index) {
    uint32_t parts = items_per_tile(step, op), slices = slices_per_kv_head(op);
    uint32_t group = op->num_q / op->num_kv, together = heads_per_item(op);
    uint32_t part = index % parts, slice = part / step->num_splits;
    uint32_t offset = slice % slices * together;
    Item item = {.tile = &step->query_tiles[index / parts], .split = part % step->num_splits};
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
        uint32_t token = item->tile->first + r / item->heads;
        uint32_t head = item->first_head + r % item->heads;
        uint32_t position = SECTION(step, positions)[token];
        const float *q = AT(float, op->qkv) + (size_t)token * row_cols + (size_t)head * dim;
        for (uint32_t i = 0; i < dim; i += LANES) {
            vf_store(rows->q + r * dim + i, vf_mul(vf_load(q + i), vf_splat(op->scale)));
        }
        rows->merged_max[r] = MASKED;
        rows->merged_sum[r] = 0.0f;
        rows->end[r] = position + 1;
        rows->begin[r] = op->window && position >= op->window ? position + 1 - op->window : 0;
    }
}

// Turns a row's scores of one chunk into softmax weights; updates its running maximum and sum.
static void softmax_row(Rows *rows, uint32_t r, uint32_t chunk, uint32_t positions) {
    float *s = rows->scores + r * CHUNK;
    uint32_t begin = rows->begin[r] > chunk ? rows->begin[r] - chunk : 0;
    uint32_t end = rows->end[r] > chunk ? rows->end[r] - chunk : 0;
    if (end > positions) end = positions;
    rows->rescale[r] = 1.0f;
    if (begin >= end) {
        memset(s, 0, CHUNK * sizeof *s);
        return;
    }
    for (uint32_t j = 0; j < begin; j++) s[j] = MASKED;
    for (uint32_t j = end; j < CHUNK; j++) s[j] = MASKED;
    VF max = vf_splat(rows->max[r]), sum = vf_splat(0.0f);
    UNROLL for (int j = 0; j < CHUNK; j += LANES) max = vf_max(max, vf_load(s + j));
    max = vf_splat(vf_reduce_max(max));
    UNROLL for (int j = 0; j < CHUNK; j += LANES) {
        VF p = vf_exp(vf_add(vf_load(s + j), vf_mul(max, vf_splat(-1.0f))));
        vf_store(s + j, p);
        sum = vf_add(sum, p);
    }
    float rescale[LANES], new_max[LANES];
    vf_store(new_max, max);
    vf_store(rescale, vf_exp(vf_add(vf_splat(rows->max[r]), vf_splat(-new_max[0]))));
    rows->rescale[r] = rescale[0];
    rows->sum[r] = rows->sum[r] * rescale[0] + vf_reduce_add(sum);
    rows->max[r] = new_max[0];
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
    for (uint32_t r = 0; r < num_rows; r++) softmax_row(rows, r, chunk, positions);
    for (uint32_t r = 0; r < num_rows; r += ROW_TILE) {
        const float *p = rows->scores + r * CHUNK, *rescale = rows->rescale + r;
        float *out = rows->out + r * dim;
        switch (num_rows - r) {
            case 1: value_rows(1, p, rescale, blocks, positions, dim, out); break;
#if ROW_TILE == 4
            case 2: value_rows(2, p, rescale, blocks, positions, dim, out); break;
            case 3: value_rows(3, p, rescale, blocks, positions, dim, out); break;
#endif
            default: value_rows(ROW_TILE, p, rescale, blocks, positions, dim, out);
        }
    }
}

INLINE uint32_t split_positions(const Step *step) {
    uint32_t context = step->plan->layout.max_blocks * BLOCK;
    uint32_t each = ((context + MAX_SPLITS - 1) / MAX_SPLITS + CHUNK - 1) / CHUNK * CHUNK;
    return each < MIN_SPLIT_POSITIONS ? MIN_SPLIT_POSITIONS : each;
}

// Computes the rows' attention to one split.
static void attend_split(Rows *rows, const Step *step, const AttentionOp *op, const Item *item,
                         uint32_t split) {
    const uint32_t *table =
        SECTION(step, block_tables) + (size_t)item->tile->seq * step->plan->layout.max_blocks;
    memset(rows->out, 0, rows->num_rows * rows->dim * sizeof *rows->out);
    for (uint32_t r = 0; r < rows->num_rows; r++) {
        rows->max[r] = MASKED;
        rows->sum[r] = 0.0f;
    }
    uint32_t from = split * split_positions(step), to = from + split_positions(step);
    uint32_t begin = rows->begin[0] / CHUNK * CHUNK, end = rows->end[rows->num_rows - 1];
    if (from < begin) from = begin;
    if (to > end) to = end;
    for (uint32_t chunk = from; chunk < to; chunk += CHUNK) {
        uint32_t positions = to - chunk < CHUNK ? to - chunk : CHUNK;
        const KV *blocks[CHUNK_BLOCKS];
        for (uint32_t b = 0; b < CHUNK_BLOCKS; b++) {  // past the end, any block: it is masked
            uint32_t used = b * BLOCK < positions ? b : (positions - 1) / BLOCK;
            blocks[b] = kv_entry(step, table[chunk / BLOCK + used], op->layer, item->kv_head);
        }
        attend_chunk(rows, blocks, chunk, positions);
    }
}

// Merges a split's result into the splits before it. Never inlined, so that it rounds alike
// everywhere: compilers fuse multiplications and additions differently from place to place.
NOINLINE static void merge_split(float *merged_out, float *merged_max, float *merged_sum,
                                 const float *out, float max, float sum, uint32_t dim) {
    if (sum == 0.0f) return;  // the row attends to nothing in the split
    if (*merged_sum == 0.0f) {
        memcpy(merged_out, out, dim * sizeof *merged_out);
        *merged_max = max;
        *merged_sum = sum;
        return;
    }
    float new_max = max > *merged_max ? max : *merged_max, before[LANES], now[LANES];
    vf_store(before, vf_exp(vf_splat(*merged_max - new_max)));
    vf_store(now, vf_exp(vf_splat(max - new_max)));
    for (uint32_t i = 0; i < dim; i += LANES) {
        VF old = vf_mul(vf_load(merged_out + i), vf_splat(before[0]));
        vf_store(merged_out + i, vf_fma(vf_load(out + i), vf_splat(now[0]), old));
    }
    *merged_max = new_max;
    *merged_sum = *merged_sum * before[0] + sum * now[0];
}

static void merge_split_of_rows(Rows *rows) {
    for (uint32_t r = 0; r < rows->num_rows; r++) {
        merge_split(rows->merged_out + r * rows->dim, &rows->merged_max[r], &rows->merged_sum[r],
                    rows->out + r * rows->dim, rows->max[r], rows->sum[r], rows->dim);
    }
}

// Computes the item's split, or every split if splits are not items of their own.
static void attend_item(Rows *rows, const Step *step, const AttentionOp *op, const Item *item) {
    uint32_t each = split_positions(step);
    uint32_t first = rows->begin[0] / each, last = (rows->end[rows->num_rows - 1] - 1) / each;
    if (step->num_splits > 1) first = last = item->split;
    for (uint32_t split = first; split <= last; split++) {
        attend_split(rows, step, op, item, split);
        merge_split_of_rows(rows);
    }
}

// ------------------------------------------------------------------------------ merging splits

// partial: out f32 [tokens, splits, num_q * dim], then (max, sum) f32 [tokens, splits, num_q, 2]
INLINE float *partial_out(const Step *step, const AttentionOp *op, uint32_t token, uint32_t split) {
    size_t row = (size_t)token * step->num_splits + split;
    return AT(float, op->partial) + row * op->num_q * op->head_dim;
}
INLINE float *partial_max_sum(const Step *step, const AttentionOp *op, uint32_t token,
                              uint32_t split) {
    size_t rows = (size_t)step->num_tokens * step->num_splits;
    size_t row = (size_t)token * step->num_splits + split;
    return AT(float, op->partial) + rows * op->num_q * op->head_dim + row * op->num_q * 2;
}

static void store_rows(const Rows *rows, const Step *step, const AttentionOp *op,
                       const Item *item) {
    for (uint32_t r = 0; r < rows->num_rows; r++) {
        uint32_t token = item->tile->first + r / item->heads;
        uint32_t head = item->first_head + r % item->heads;
        float *out = partial_out(step, op, token, item->split) + (size_t)head * rows->dim;
        memcpy(out, rows->merged_out + r * rows->dim, rows->dim * sizeof *out);
        float *max_sum = partial_max_sum(step, op, token, item->split) + 2 * head;
        max_sum[0] = rows->merged_max[r];
        max_sum[1] = rows->merged_sum[r];
    }
}

static void combine_head(const Step *step, const AttentionOp *op, uint32_t token, uint32_t head) {
    uint32_t dim = op->head_dim;
    float *merged_out = partial_out(step, op, token, 0) + (size_t)head * dim;
    float *merged_max = partial_max_sum(step, op, token, 0) + 2 * head;
    float *merged_sum = merged_max + 1;
    for (uint32_t s = 1; s < step->num_splits; s++) {
        const float *out = partial_out(step, op, token, s) + (size_t)head * dim;
        const float *max_sum = partial_max_sum(step, op, token, s) + 2 * head;
        merge_split(merged_out, merged_max, merged_sum, out, max_sum[0], max_sum[1], dim);
    }
    for (uint32_t i = 0; i < dim; i += LANES) {
        vf_store(merged_out + i, vf_mul(vf_load(merged_out + i), vf_splat(1.0f / *merged_sum)));
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
    attend_item(&rows, step, op, &item);
    store_rows(&rows, step, op, &item);
    QueryTile *tile = &step->query_tiles[index / items_per_tile(step, op)];
    if (atomic_add(&tile->finished, 1) + 1 == items_per_tile(step, op)) {
        atomic_set(&tile->finished, 0);  // for the next layer
        finish_tile(step, op, tile);
    }
}

// -------------------------------------------------------------------------------- once per step

// Divides the batch into query tiles: large in prefill, but enough of them for many threads.
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
            step->query_tiles[step->num_query_tiles++] =
                (QueryTile){seq, starts[seq] + i, count, 0};
        }
        uint32_t context = SECTION(step, context_lens)[seq];
        longest = context > longest ? context : longest;
    }
    step->num_splits = 1;
    if (step->num_tokens <= SPLIT_TOKENS) {
        step->num_splits = (longest - 1) / split_positions(step) + 1;
    }
}
