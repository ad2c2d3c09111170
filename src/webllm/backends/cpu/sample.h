// Draws a token from logits by the rule of docs/sampling.md.
//
// Every filter of that rule keeps the tokens whose scaled logit reaches a threshold, so that no
// sorting is needed. The threshold of top-k and top-p is found by radix selection: histograms of
// the floats' leading bits, then of the next ones.

#pragma once
#include "formats.h"
#include "ops.h"

// Natural logarithm with a relative error of about 1e-15; x is positive and normal.
static double log_of(double x) {
    uint64_t bits;
    memcpy(&bits, &x, 8);
    int exponent = (int)(bits >> 52) - 1023;
    bits = (bits & 0xfffffffffffffULL) | 0x3ff0000000000000ULL;
    double m;
    memcpy(&m, &bits, 8);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        exponent++;
    }
    double z = (m - 1.0) / (m + 1.0), z2 = z * z, sum = 0.0;
    for (int k = 21; k >= 1; k -= 2) sum = sum * z2 + 1.0 / k;
    return 2.0 * z * sum + exponent * 0.6931471805599453;
}

// PCG's output hash (O'Neill 2014), RXS-M-XS for 32 bits.
INLINE uint32_t pcg(uint32_t a) {
    uint32_t state = a * 747796405u + 2891336453u;
    uint32_t word = ((state >> ((state >> 28) + 4)) ^ state) * 277803737u;
    return (word >> 22) ^ word;
}

// Maps a float to an integer; the integers have the order of the floats.
INLINE uint32_t sortable_bits(float a) {
    uint32_t bits = bits_of(a);
    return bits & 0x80000000 ? ~bits : bits | 0x80000000;
}
INLINE float float_of_sortable(uint32_t key) {
    return float_of(key & 0x80000000 ? key & 0x7fffffff : ~key);
}

// Returns the largest threshold for which the entries at or above it weigh at least `target` in
// sum. Entry i weighs weights[i], or 1 if `weights` is NULL. Entries below `floor` do not count.
static float threshold_of_mass(const float *x, const float *weights, uint32_t n, float floor,
                           double target) {
    uint32_t prefix = 0, known = 0;  // the threshold's leading bits
    double above = 0.0;
    while (known < 32) {
        uint32_t digits = known < 22 ? 11 : 10, shift = 32 - known - digits;
        double mass[2048] = {0};
        uint32_t count[2048] = {0};
        for (uint32_t i = 0; i < n; i++) {
            uint32_t key = sortable_bits(x[i]);
            if (x[i] < floor || (known && key >> (32 - known) != prefix)) continue;
            uint32_t bucket = key >> shift & ((1u << digits) - 1);
            mass[bucket] += weights ? (double)weights[i] : 1.0;
            count[bucket]++;
        }
        uint32_t chosen = 0;
        for (int bucket = (1 << digits) - 1; bucket >= 0; bucket--) {
            if (!count[bucket]) continue;
            chosen = (uint32_t)bucket;
            if (above + mass[bucket] >= target) break;
            above += mass[bucket];
        }
        if (above + mass[chosen] < target) above -= mass[chosen];  // rounding: take the last
        prefix = prefix << digits | chosen;
        known += digits;
    }
    return float_of_sortable(prefix);
}

static uint32_t argmax(const float *x, uint32_t n) {
    VF top = vf_splat(x[0]);
    uint32_t i = 0;
    for (; i + LANES <= n; i += LANES) top = vf_max(top, vf_load(x + i));
    float best = vf_reduce_max(top);
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    for (i = 0; i + 1 < n && x[i] != best; i++) {}
    return i;
}

// scaled = logits / temperature, p = exp(scaled - max(scaled)); `top` is the largest logit.
static void scale_and_exp(const float *logits, uint32_t n, float temperature, float top,
                          float *scaled, float *p) {
    float shift = top / temperature;
    for (uint32_t i = 0; i < n; i += LANES) {
        float tail[LANES];
        uint32_t count = n - i < LANES ? n - i : LANES;
        for (uint32_t j = 0; j < LANES; j++) tail[j] = logits[i + (j < count ? j : 0)];
        VF s = vf_div(vf_load(tail), vf_splat(temperature));
        vf_store(tail, s);
        memcpy(scaled + i, tail, count * sizeof *tail);
        vf_store(tail, vf_exp(vf_add(s, vf_splat(-shift))));
        memcpy(p + i, tail, count * sizeof *tail);
    }
}

#define SAMPLING_WORDS 12
#define IN_PROMPT (1u << 31)
#define MAX_LOGPROBS 20  // likeliest tokens that an output may ask for

typedef struct {
    float temperature, top_p, min_p;
    uint32_t top_k, seed;
    float repetition_penalty, frequency_penalty, presence_penalty;
    uint32_t num_logprobs, first_edit, num_edits, reserved;  // num_logprobs + 1; 0: none wanted
} SamplingWords;
_Static_assert(sizeof(SamplingWords) == 4 * SAMPLING_WORDS, "a row of the step");

typedef struct {
    uint32_t token;
    float bias;
    uint32_t count;  // how often the token was generated, with the flag IN_PROMPT
} Edit;

typedef struct {  // of one output; webllm/ops/sampled.py reads it
    float logprob;
    uint32_t ids[MAX_LOGPROBS];  // NO_TOKEN after the last
    float logprobs[MAX_LOGPROBS];
} Logprobs;
#define NO_TOKEN 0xffffffffu

// The smallest scaled logit that top-k, top-p and min-p keep.
static float filter_threshold(const SamplingWords *s, const float *scaled, const float *p,
                              uint32_t n, float top) {
    float floor = -3.4e38f;
    if (s->top_k > 0 && s->top_k < n) floor = threshold_of_mass(scaled, 0, n, floor, s->top_k);
    if (s->top_p < 1.0f) {
        double total = 0.0;
        for (uint32_t i = 0; i < n; i++) total += scaled[i] >= floor ? (double)p[i] : 0.0;
        floor = threshold_of_mass(scaled, p, n, floor, (double)s->top_p * total);
    }
    if (s->min_p > 0.0f) {
        float least = top + (float)log_of((double)s->min_p);
        floor = least > floor ? least : floor;
    }
    return floor;
}

// Returns the kept token with the largest scaled + gumbel (the Gumbel-max trick). Few tokens need
// their logarithms: as gumbel <= -log(1 - u), one only wins if (1 - u) * exp(best - scaled) < 1.
static uint32_t draw(const float *scaled, const float *p, uint32_t n, float floor, uint32_t key) {
    double best = -1e300;
    uint32_t winner = 0;
    float reach = 0.0f, slack = 1.001f;  // reach = exp(best - largest scaled)
    double top = (double)scaled[argmax(scaled, n)];
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = pcg(key + i) >> 8;
        if (scaled[i] < floor) continue;
        float rest = 1.0f - (float)k * 0x1p-24f;  // a little more than 1 - u
        if ((rest - 0x1p-25f) * reach >= p[i] * slack) continue;
        double value = (double)scaled[i] - log_of(-log_of((double)k * 0x1p-24 + 0x1p-25));
        if (value <= best) continue;
        best = value;
        winner = i;
        float wide[LANES];
        vf_store(wide, vf_exp(vf_splat((float)(best - top))));
        reach = wide[0];
    }
    return winner;
}

// Replaces ids FROM_SAMPLED by the sampled tokens, before this step's sampling overwrites them.
static void resolve_sampled_tokens(const Plan *plan, uint32_t *token_ids, uint32_t num_tokens) {
    for (uint32_t i = 0; i < num_tokens; i++) {
        if (!(token_ids[i] & FROM_SAMPLED)) continue;
        token_ids[i] = FROM_SAMPLED | AT(uint32_t, plan->sampled)[token_ids[i] & ~FROM_SAMPLED];
    }
}

static float edited(float logit, Edit edit, const SamplingWords *s) {
    uint32_t count = edit.count & ~IN_PROMPT;
    logit += edit.bias;
    if (edit.count) {
        logit = logit > 0.0f ? logit / s->repetition_penalty : logit * s->repetition_penalty;
    }
    float presence = count ? s->presence_penalty : 0.0f;
    return logit - (s->frequency_penalty * (float)count + presence);
}

// `input` is the row's own token. If it is FROM_SAMPLED, the host has not counted it yet.
static void edit_logits(const Edit *edits, const SamplingWords *s, uint32_t input, float *logits,
                        uint32_t vocab) {
    uint32_t unknown = input & FROM_SAMPLED ? input & ~FROM_SAMPLED : NO_TOKEN;
    for (uint32_t i = 0; i < s->num_edits; i++) {
        Edit edit = edits[i];
        if (edit.token >= vocab) continue;
        if (edit.token == unknown) {
            edit.count++;
            unknown = NO_TOKEN;
        }
        logits[edit.token] = edited(logits[edit.token], edit, s);
    }
    if (unknown >= vocab) return;
    logits[unknown] = edited(logits[unknown], (Edit){unknown, 0.0f, 1}, s);
}

// Finds the `count` largest logits in order; among equals the lowest id comes first.
static void find_top_logits(const float *logits, uint32_t n, uint32_t count, Logprobs *out) {
    for (uint32_t i = 0; i < MAX_LOGPROBS; i++) {
        out->ids[i] = NO_TOKEN;
        out->logprobs[i] = -__builtin_inff();
    }
    for (uint32_t i = 0; count && i < n; i++) {
        uint32_t at = count - 1;
        if (!(logits[i] > out->logprobs[at])) continue;
        for (; at > 0 && logits[i] > out->logprobs[at - 1]; at--) {
            out->ids[at] = out->ids[at - 1];
            out->logprobs[at] = out->logprobs[at - 1];
        }
        out->ids[at] = i;
        out->logprobs[at] = logits[i];
    }
}

// `scratch` is f32 [2, n].
static void find_logprobs(const float *logits, uint32_t n, uint32_t token, uint32_t num_top,
                          float *scratch, Logprobs *out) {
    float top = logits[argmax(logits, n)], *p = scratch + n;
    scale_and_exp(logits, n, 1.0f, top, scratch, p);
    double total = 0.0;
    for (uint32_t i = 0; i < n; i++) total += (double)p[i];
    double shift = (double)top + log_of(total);
    find_top_logits(logits, n, num_top, out);
    for (uint32_t i = 0; i < MAX_LOGPROBS; i++) {
        out->logprobs[i] = (float)((double)out->logprobs[i] - shift);
    }
    out->logprob = (float)((double)logits[token] - shift);
}

static uint32_t sampled_token(const SamplingWords *s, const float *logits, uint32_t n,
                              uint32_t position, float *scratch) {
    uint32_t best = argmax(logits, n);
    if (s->temperature == 0.0f) return best;
    float *scaled = scratch, *p = scratch + n;
    scale_and_exp(logits, n, s->temperature, logits[best], scaled, p);
    float floor = filter_threshold(s, scaled, p, n, scaled[best]);
    return draw(scaled, p, n, floor, pcg(s->seed ^ pcg(position)));
}

static void sample_row(const Step *step, const SampleOp *op, uint32_t output, uint32_t thread) {
    uint32_t n = op->vocab, row = SECTION(step, output_rows)[output];
    float *logits = AT(float, op->logits) + (size_t)output * n;
    float *scratch = AT(float, op->scratch) + (size_t)thread * 2 * n;
    SamplingWords s;
    memcpy(&s, SECTION(step, sampling) + SAMPLING_WORDS * output, sizeof s);
    const Edit *edits = (const Edit *)(step->step + s.first_edit);
    edit_logits(edits, &s, SECTION(step, token_ids)[row], logits, n);
    uint32_t token = sampled_token(&s, logits, n, SECTION(step, positions)[row], scratch);
    AT(uint32_t, step->plan->sampled)[output] = token;
    if (!s.num_logprobs) return;
    Logprobs *out = AT(Logprobs, step->plan->logprobs) + output;
    find_logprobs(logits, n, token, s.num_logprobs - 1, scratch, out);
}
