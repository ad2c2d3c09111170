// The structs that Python passes to C: one plan for each model, and one step at a time.
//
// structs.py packs the same structs: little endian, no padding, and addresses always of 64 bits, so
// that they are the same on wasm32.

#pragma once
#include <stdint.h>
#include "threads.h"

typedef uint64_t Address;
#define FROM_SAMPLED (1u << 31)  // flag of a token id: the rest names the output that samples it
#define AT(type, address) ((type *)(uintptr_t)(address))

// New kinds go last; tests/unit/test_cpu_structs.py compares kinds and fields with structs.py.
enum { OP_EMBED, OP_NORM, OP_LINEAR, OP_GATED, OP_ROPE_KV, OP_ATTENTION, OP_TAKE, OP_SAMPLE };
enum { SILU, GELU_TANH };

typedef struct {  // consecutive rows of a weight in one format, from row `first_panel` * 16 on
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
    uint32_t kind, of_outputs;  // of_outputs: one row for each output, else for each token
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

typedef struct {  // word offsets of a step's sections, see webllm/ops/step.py
    uint32_t token_ids, positions, seq_ids, slot_mapping, context_lens, query_starts;
    uint32_t output_rows, sampling, block_tables, max_blocks;
} Layout;

// Consecutive queries of one sequence that attention handles together.
typedef struct {
    uint32_t seq, first, count;  // first: row of the batch
    uint32_t finished;           // work items that are done
} QueryTile;

// The number of finished items of one op, alone in its cache line.
typedef struct {
    uint32_t done, padding[15];
} Progress;

typedef struct {
    Address ops, step, kv, sampled, logprobs, progress, query_tiles;
    uint32_t num_ops, num_layers, kv_heads, head_dim, tile_queries, reserved;
    Layout layout;
} Plan;

// The position of a thread in its share of an op, see work_stealing.h; alone in its cache line.
typedef struct {
    _Alignas(64) uint64_t next;
} Cursor;

// A plan while one step of it runs.
typedef struct {
    const Plan *plan;
    const Op *ops;
    const uint32_t *step;
    Progress *progress;
    QueryTile *query_tiles;
    uint32_t num_tokens, num_seqs, num_outputs, first_op, num_query_tiles, num_splits;
    uint32_t num_shares;   // shares of every op: the number of threads at the beginning
    uint32_t num_threads;  // threads that take part; drop_threads() lowers it
    uint64_t since_ns, lost_ns;  // time that the calling thread waited for others since `since_ns`
    Cursor cursors[MAX_THREADS];
} Step;

#define SECTION(step, name) ((step)->step + (step)->plan->layout.name)
