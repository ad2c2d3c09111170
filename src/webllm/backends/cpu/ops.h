// What Python hands over: a plan once per batch shape, a step each time.
//
// `webllm/backends/cpu/records.py` packs these very structs: little endian, no padding, addresses always as
// 64 bits, so that they are the same on wasm32.

#pragma once
#include <stdint.h>
#include "threads.h"

typedef uint64_t Address;
#define FROM_SAMPLED (1u << 31)  // in a token id: it is the one that an output sampled
#define AT(type, address) ((type *)(uintptr_t)(address))

enum { OP_EMBED, OP_NORM, OP_LINEAR, OP_GATED, OP_ROPE_KV, OP_ATTENTION, OP_TAKE, OP_SAMPLE };
enum { SILU, GELU_TANH };

typedef struct {  // rows of a weight in one format, from row `first_panel` * 16 on
    Address panels;
    uint32_t format, first_panel;
} Run;

typedef struct {
    uint32_t rows, cols, num_runs, reserved;
    Run runs[];
} Matrix;

typedef struct {
    Address table, out;
    float scale;
} EmbedOp;

typedef struct {
    Address x, gamma, out, branch, branch_gamma;
    uint32_t cols, encoding;
    float eps;
} NormOp;

typedef struct {
    Address x, weight, bias, out;
    uint32_t x_encoding, accumulate;
} LinearOp;

typedef struct {
    Address x, gate, up, out;
    uint32_t x_encoding, encoding, activation;
} GatedOp;

typedef struct {
    Address qkv, fine, coarse, q_gamma, k_gamma;
    uint32_t num_q, num_kv, head_dim, rope_dim, layer;
    float eps;
} RopeOp;

typedef struct {
    Address qkv, out, partial;  // partial: see attention.h
    uint32_t num_q, num_kv, head_dim, layer, window, encoding;
    float scale;
} AttentionOp;

typedef struct {
    Address x, out;
    uint32_t row_bytes;
} TakeOp;

typedef struct {
    Address logits, scratch;  // scratch: f32 [threads, 2, vocab]
    uint32_t vocab;
} SampleOp;

typedef struct {
    uint32_t kind, of_outputs;  // of_outputs: has a row per output, not per token
    union {
        EmbedOp embed;
        NormOp norm;
        LinearOp linear;
        GatedOp gated;
        RopeOp rope;
        AttentionOp attention;
        TakeOp take;
        SampleOp sample;
        uint8_t bytes[88];
    };
} Op;

typedef struct {  // the sections of webllm.ops.step.StepLayout, in words
    uint32_t token_ids, positions, seq_ids, slots, context_lens, query_starts, output_rows;
    uint32_t sampling, block_tables, max_blocks;
} Layout;

// Queries of one sequence that attention works on together.
typedef struct {
    uint32_t seq, first, count;  // first: row of the batch
    uint32_t finished;           // parts that are done
} QueryTile;

// How far one op is; alone in its cache line.
typedef struct {
    uint32_t done, padding[15];
} Progress;

typedef struct {
    Address ops, step, kv, sampled, logprobs, progress, query_tiles;
    uint32_t num_ops, num_layers, kv_heads, head_dim, tile_queries, reserved;
    Layout layout;
} Plan;

// Where a thread is with its share of an op, see shares.h; alone in its cache line.
typedef struct {
    _Alignas(64) uint64_t next;
} Cursor;

// A plan with what its step says.
typedef struct {
    const Plan *plan;
    const Op *ops;
    const uint32_t *step;
    Progress *progress;
    QueryTile *query_tiles;
    uint32_t num_tokens, num_seqs, num_outputs, first_op, num_query_tiles, num_spans;
    uint32_t num_shares;   // of every op: the threads at the beginning
    uint32_t num_threads;  // that take part; shed_threads() lowers it
    uint64_t since_ns, lost_ns;  // time the calling thread stood waiting for others, since when
    Cursor cursors[MAX_THREADS];
} Step;

#define SECTION(step, name) ((step)->step + (step)->plan->layout.name)
