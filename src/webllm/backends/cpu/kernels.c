// The CPU kernels: they execute a plan's ops over one step, and pack weights. Python calls the
// functions marked EXPORT. Only pool_create() allocates memory.
//
//   ops.h            the structs that Python passes
//   packing.h        rows of a model file -> panels     formats.h    formats of weights
//   blocks.h         storage types of model files       quantize.h   floats -> Q4_0 and Q8_0
//   matmul.h         activations, matrix products       rope_kv.h    rotary embedding, KV cache
//   attention.h      attention over the KV cache        sample.h     sampling
//   threads.h        the thread pool                    system.h     threads of each system
//   work_stealing.h  an op's items among threads        simd.h       vector instructions
//   self_test.h      known answers                      variants.h   variants this CPU runs

#include "attention.h"
#include "formats.h"
#include "matmul.h"
#include "ops.h"
#include "packing.h"
#include "sample.h"
#include "self_test.h"
#include "threads.h"
#include "work_stealing.h"
#if !defined(__wasm__)
#include <stdlib.h>
#include "variants.h"
#endif

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

// ----------------------------------------------------------------------------- matrix products

#define TOKEN_CHUNK_BYTES (192 << 10)  // activations that stay in the L2 cache
#define CLAIM_BYTES (32 << 10)         // weights that one claim takes at least, when decoding

INLINE const Run *run_of_panel(const Matrix *weight, uint32_t panel) {
    const Run *run = weight->runs;
    while (run + 1 < weight->runs + weight->num_runs && run[1].first_panel <= panel) run++;
    return run;
}

// Computes y[t][16] = x[t] @ panel.T for 2^log2 tokens.
INLINE void multiply(const Matrix *weight, uint32_t panel, const uint8_t *x, size_t stride,
                     uint32_t log2, float *y) {
    const Run *run = run_of_panel(weight, panel);
    const uint8_t *at = AT(uint8_t, run->panels) +
                        (panel - run->first_panel) * panel_bytes(run->format, weight->cols);
    tiles[run->format][log2](at, weight->cols, x, stride, y);
}

// Prefill multiplies chunks of tokens, so that a chunk stays in the L2 cache for several panels.
INLINE uint32_t chunk_tokens(uint32_t num_tokens, size_t stride) {
    uint32_t fit = (uint32_t)(TOKEN_CHUNK_BYTES / stride) & ~7u;
    return MIN(MAX(fit, 32), MAX(num_tokens, 1));
}
INLINE uint32_t num_chunks(uint32_t num_tokens, size_t stride) {
    uint32_t chunk = chunk_tokens(num_tokens, stride);
    return (num_tokens + chunk - 1) / chunk;
}

static void store_tile(const LinearOp *op, uint32_t rows, uint32_t panel, uint32_t token,
                       uint32_t count, float *y) {
    uint32_t first = panel * PANEL, width = MIN(PANEL, rows - first);
    const float *bias = op->bias ? AT(float, op->bias) + first : 0;
    for (uint32_t t = 0; t < count; t++, y += PANEL) {
        float *out = AT(float, op->out) + (size_t)(token + t) * rows + first;
        for (uint32_t i = 0; bias && i < width; i++) y[i] += bias[i];
        if (width < PANEL) {
            for (uint32_t i = 0; i < width; i++) out[i] = op->accumulate ? out[i] + y[i] : y[i];
            continue;
        }
        UNROLL for (int i = 0; i < PANEL; i += LANES) {
            VF value = vf_load(y + i);
            if (op->accumulate) value = vf_add(value, vf_load(out + i));
            vf_store(out + i, value);
        }
    }
}

static void linear_item(const LinearOp *op, uint32_t num_tokens, uint32_t index) {
    const Matrix *weight = AT(Matrix, op->weight);
    size_t stride = row_bytes(op->x_encoding, weight->cols);
    uint32_t panels = (weight->rows + PANEL - 1) / PANEL, panel = index % panels;
    uint32_t chunk = chunk_tokens(num_tokens, stride);
    uint32_t token = index / panels * chunk, end = MIN(token + chunk, num_tokens);
    while (token < end) {
        uint32_t log2 = tile_log2(end - token);
        float y[TILE_TOKENS * PANEL];
        multiply(weight, panel, AT(uint8_t, op->x) + token * stride, stride, log2, y);
        store_tile(op, weight->rows, panel, token, 1u << log2, y);
        token += 1u << log2;
    }
}

// gate = activation(gate) * up; gelu_tanh(x) = x * sigmoid(2 z), where z is the tanh's argument.
INLINE void gate_panel(float *gate, const float *up, uint32_t activation) {
    UNROLL for (int i = 0; i < PANEL; i += LANES) {
        VF a = vf_load(gate + i), z = a, one = vf_splat(1.0f);
        if (activation == GELU_TANH) {
            VF cubic = vf_fma(vf_mul(a, a), vf_splat(0.044715f), one);
            z = vf_mul(vf_mul(a, cubic), vf_splat(1.5957691216f));
        }
        VF sigmoid = vf_div(one, vf_add(one, vf_exp(vf_mul(z, vf_splat(-1.0f)))));
        vf_store(gate + i, vf_mul(vf_mul(a, sigmoid), vf_load(up + i)));
    }
}

static void gated_tile(const GatedOp *op, uint32_t group, uint32_t token, uint32_t log2) {
    const Matrix *gate = AT(Matrix, op->gate), *up = AT(Matrix, op->up);
    size_t stride = row_bytes(op->x_encoding, gate->cols);
    const uint8_t *x = AT(uint8_t, op->x) + token * stride;
    float y[2][2][TILE_TOKENS * PANEL];  // [gate or up, panel of the group]
    for (uint32_t p = 0; p < 2; p++) {
        multiply(gate, 2 * group + p, x, stride, log2, y[0][p]);
        multiply(up, 2 * group + p, x, stride, log2, y[1][p]);
    }
    for (uint32_t t = 0; t < 1u << log2; t++) {
        float columns[2 * PANEL];
        for (uint32_t p = 0; p < 2; p++) {
            gate_panel(y[0][p] + t * PANEL, y[1][p] + t * PANEL, op->activation);
            memcpy(columns + p * PANEL, y[0][p] + t * PANEL, PANEL * sizeof *columns);
        }
        uint8_t *out = AT(uint8_t, op->out) + (token + t) * row_bytes(op->encoding, gate->rows);
        encode_group(out, op->encoding, gate->rows, group, columns);
    }
}

static void gated_item(const GatedOp *op, uint32_t num_tokens, uint32_t index) {
    const Matrix *gate = AT(Matrix, op->gate);
    uint32_t groups = gate->rows / 32, group = index % groups;
    uint32_t chunk = chunk_tokens(num_tokens, row_bytes(op->x_encoding, gate->cols));
    uint32_t token = index / groups * chunk, end = MIN(token + chunk, num_tokens);
    while (token < end) {
        uint32_t log2 = tile_log2(end - token);
        gated_tile(op, group, token, log2);
        token += 1u << log2;
    }
}

// ------------------------------------------------------------------------------------- rows

static void embed_row(const Step *step, const EmbedOp *op, uint32_t token) {
    const Matrix *table = AT(Matrix, op->table);
    uint32_t id = SECTION(step, token_ids)[token] & ~FROM_SAMPLED;
    if (id >= table->rows) id = 0;  // the engine checks ids; this only keeps reads in bounds
    float *out = AT(float, op->out) + (size_t)token * table->cols;
    const Run *run = run_of_panel(table, id / PANEL);
    size_t panel = (id / PANEL - run->first_panel) * panel_bytes(run->format, table->cols);
    unpack_row(out, run->format, AT(uint8_t, run->panels) + panel, table->cols, id % PANEL);
    for (uint32_t i = 0; i < table->cols; i++) out[i] *= op->scale;
}

static void norm_row(const NormOp *op, uint32_t row) {
    uint32_t cols = op->cols;
    float *x = AT(float, op->x) + (size_t)row * cols;
    if (op->branch) {
        const float *branch = AT(float, op->branch) + (size_t)row * cols;
        const float *gamma = AT(float, op->branch_gamma);
        VF r = vf_splat(inverse_rms(branch, cols, op->eps));
        for (uint32_t i = 0; i < cols; i += LANES) {
            VF scaled = vf_mul(vf_mul(vf_load(branch + i), r), vf_load(gamma + i));
            vf_store(x + i, vf_add(vf_load(x + i), scaled));
        }
    }
    VF r = vf_splat(inverse_rms(x, cols, op->eps));
    uint8_t *out = AT(uint8_t, op->out) + row * row_bytes(op->encoding, cols);
    for (uint32_t b = 0; b < cols / 32; b++) {
        float group[32];
        UNROLL for (uint32_t i = 0; i < 32; i += LANES) {
            VF gamma = vf_load(AT(float, op->gamma) + 32 * b + i);
            vf_store(group + i, vf_mul(vf_mul(vf_load(x + 32 * b + i), r), gamma));
        }
        encode_group(out, op->encoding, cols, b, group);
    }
}

static void take_row(const Step *step, const TakeOp *op, uint32_t output) {
    size_t from = SECTION(step, output_rows)[output];
    memcpy(AT(uint8_t, op->out) + (size_t)output * op->row_bytes,
           AT(uint8_t, op->x) + from * op->row_bytes, op->row_bytes);
}

// -------------------------------------------------------------------------------------- a step

INLINE uint32_t op_rows(const Step *step, const Op *op) {
    return op->of_outputs ? step->num_outputs : step->num_tokens;
}

static uint32_t num_items(const Step *step, const Op *op) {
    uint32_t rows = op_rows(step, op);
    if (!rows) return 0;
    switch (op->kind) {
        case OP_LINEAR: {
            const Matrix *weight = AT(Matrix, op->linear.weight);
            size_t stride = row_bytes(op->linear.x_encoding, weight->cols);
            return (weight->rows + PANEL - 1) / PANEL * num_chunks(rows, stride);
        }
        case OP_GATED: {
            const Matrix *gate = AT(Matrix, op->gated.gate);
            size_t stride = row_bytes(op->gated.x_encoding, gate->cols);
            return gate->rows / 32 * num_chunks(rows, stride);
        }
        case OP_ATTENTION: return step->num_query_tiles * items_per_tile(step, &op->attention);
        default: return rows;
    }
}

// The fewest items that one claim takes: a claim costs as much as some hundred bytes of weights.
static uint32_t min_claim(const Step *step, const Op *op) {
    if (op->kind != OP_LINEAR && op->kind != OP_GATED) return 1;
    if (!op_rows(step, op)) return 1;  // no output: a chunk of a prompt needs no logits
    const Matrix *weight = AT(Matrix, op->kind == OP_LINEAR ? op->linear.weight : op->gated.gate);
    size_t item_bytes = panel_bytes(weight->runs[0].format, weight->cols) * op_rows(step, op);
    if (op->kind == OP_GATED) item_bytes *= 4;
    return (uint32_t)MAX(CLAIM_BYTES / item_bytes, 1);
}

static void run_item(const Step *step, const Op *op, uint32_t index, uint32_t thread) {
    switch (op->kind) {
        case OP_EMBED: embed_row(step, &op->embed, index); break;
        case OP_NORM: norm_row(&op->norm, index); break;
        case OP_LINEAR: linear_item(&op->linear, op_rows(step, op), index); break;
        case OP_GATED: gated_item(&op->gated, op_rows(step, op), index); break;
        case OP_ROPE_KV: rope_kv_token(step, &op->rope, index); break;
        case OP_ATTENTION: attend(step, &op->attention, index); break;
        case OP_TAKE: take_row(step, &op->take, index); break;
        case OP_SAMPLE: sample_row(step, &op->sample, index, thread); break;
        default: break;
    }
}

// Every thread runs this: for each op, items of its own share, then of the others', then a barrier.
static void run_ops(void *argument, uint32_t thread) {
    Step *step = argument;
    for (uint32_t i = step->first_op; i < step->plan->num_ops; i++) {
        if (thread > 0 && thread >= atomic_get(&step->num_threads)) return;
        const Op *op = &step->ops[i];
        uint32_t items = num_items(step, op), min_count = min_claim(step, op), did = 0;
        for (uint32_t k = 0; k < step->num_shares; k++) {
            Share share = share_of(step, i, items, (thread + k) % step->num_shares);
            uint32_t first, count;
            while ((count = claim(&share, k == 0, min_count, &first))) {
                for (uint32_t n = 0; n < count; n++) run_item(step, op, first + n, thread);
                did += count;
            }
        }
        Progress *progress = &step->progress[i];
        if (did) atomic_add(&progress->done, did);
        uint64_t lost_ns = barrier(progress, items);
        if (thread == 0 && lost_ns > 0) drop_threads(step, lost_ns);
    }
}

static Step begin_step(const Plan *plan, uint32_t num_threads) {
    uint32_t *words = AT(uint32_t, plan->step);
    resolve_sampled_tokens(plan, words + plan->layout.token_ids, words[0]);
    Step step = {
        .plan = plan,
        .ops = AT(Op, plan->ops),
        .step = words,
        .progress = AT(Progress, plan->progress),
        .query_tiles = AT(QueryTile, plan->query_tiles),
        .num_tokens = words[0],
        .num_seqs = words[1],
        .num_outputs = words[2],
        .first_op = words[3] ? plan->num_ops - 1 : 0,  // resample: sampling is the last op
        .num_shares = num_threads,
        .num_threads = num_threads,
        .since_ns = now_ns(),
    };
    memset(step.progress, 0, plan->num_ops * sizeof(Progress));
    plan_query_tiles(&step);
    return step;
}

#define MIN_BACKOFF_NS 100000000ull
#define MAX_BACKOFF_NS 3200000000ull

// After a step that dropped threads, the next steps run without them until a backoff has passed.
// Then all threads are tried again; if that fails soon, the backoff doubles.
static void adapt_threads(Pool *pool, uint32_t num_threads) {
    uint64_t now = now_ns();
    if (num_threads < pool->num_active) {
        uint64_t last = now - pool->all_since_ns < MIN_BACKOFF_NS ? pool->backoff_ns : 0;
        pool->num_active = num_threads;
        pool->backoff_ns = MIN(MAX(last * 2, MIN_BACKOFF_NS), MAX_BACKOFF_NS);
        pool->retry_at_ns = now + pool->backoff_ns;
    } else if (pool->num_active < pool->num_threads && now >= pool->retry_at_ns) {
        pool->num_active = pool->num_threads;
        pool->all_since_ns = now;
    }
}

// Runs the step that Python has written to the plan's memory.
EXPORT void run(Pool *pool, const Plan *plan) {
    Step step = begin_step(plan, pool->num_active);
    pool_run(pool, run_ops, &step);
    adapt_threads(pool, step.num_threads);
}

// --------------------------------------------------------------------------------- the library

EXPORT void pack(Pool *pool, Packing *packing) { pool_run(pool, pack_panels, packing); }

// Decodes all rows of a packing's source to f32, for tests.
EXPORT void dequantize(const Packing *packing, float *out) {
    for (uint32_t i = 0; i < packing->rows; i++) {
        Row row = row_of(packing, i);
        for (uint32_t b = 0; b < packing->cols / 32; b++, out += 32) {
            decode_floats(out, &packing->storage, &row, b);
        }
    }
}

EXPORT const char *isa(void) { return ISA; }

// Whether vf_fma rounds once. For relaxed WebAssembly the engine decides, by the CPU it runs on.
EXPORT int fuses(void) {
    volatile float a = 1.0f + 0x1p-12f;  // a * a rounds to 1 + 2^-11
    return vf_reduce_max(vf_fma(vf_splat(a), vf_splat(a), vf_splat(-1.0f - 0x1p-11f))) != 0.0f;
}

EXPORT int self_test(void) { return tiles_are_correct(); }
EXPORT uint32_t kv_element_bytes(void) { return sizeof(KV); }

#if defined(__wasm__)

// Every Web Worker calls pool_work(), on a stack of its own; see thread.js.
EXPORT Pool *pool_create(uint32_t num_threads) {
    static Pool pool;
    pool.num_threads = pool.num_active = num_threads;
    return &pool;
}
EXPORT void pool_destroy(Pool *pool) { stop_workers(pool); }
#if defined(__wasm_atomics__)
EXPORT void pool_work(Pool *pool, uint32_t id) {
    pool->workers[id] = (Worker){.pool = pool, .id = id};
    work(&pool->workers[id]);
}
#endif

// Declared in simd.h. `volatile` keeps the compiler from turning a loop into a call to itself.
void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    for (size_t i = 0; i < n; i++) ((volatile char *)to)[i] = ((const char *)from)[i];
    return to;
}
void *memset(void *to, int byte, size_t n) {
    for (size_t i = 0; i < n; i++) ((volatile char *)to)[i] = (char)byte;
    return to;
}

#else

EXPORT void pool_destroy(Pool *pool) {
    stop_workers(pool);
    for (uint32_t i = 1; i < pool->num_threads; i++) thread_join(pool->workers[i].thread);
    free(pool->allocation);
}

static THREAD_RESULT worker_main(void *worker) {
    work(worker);
    return 0;
}

// Returns a pool of `num_threads` threads, or as many as the system gives. NULL: out of memory.
EXPORT Pool *pool_create(uint32_t num_threads) {
    void *allocation = calloc(1, sizeof(Pool) + 63);  // calloc aligns to 16 bytes
    if (!allocation) return 0;
    Pool *pool = (void *)(((uintptr_t)allocation + 63) & ~(uintptr_t)63);
    pool->allocation = allocation;
    mutex_init(&pool->mutex);
    condition_init(&pool->wake);
    pool->num_threads = 1;
    for (uint32_t i = 1; i < MIN(num_threads, MAX_THREADS); i++) {
        Worker *worker = &pool->workers[i];
        worker->pool = pool;
        worker->id = i;
        if (thread_start(&worker->thread, worker_main, worker)) break;
        pool->num_threads++;
    }
    pool->num_active = pool->num_threads;
    return pool;
}

EXPORT uint32_t runnable_variants(void) { return variants_of_this_cpu(); }

#endif
