// How the threads of a step share the items of an op, and wait for each other after it.
//
// An op's items lie in as many shares as threads began the step. A thread first does its own share,
// front to back, so that it reads memory in one stream (two threads that take turns get half of the
// bandwidth), and then helps with what is left of others.

#pragma once
#include "ops.h"
#include "simd.h"
#include "threads.h"

typedef struct {
    uint64_t *cursor;  // op number and next item; of an earlier op: nothing is claimed yet
    uint32_t op, begin, end;
} Share;

static Share share_of(Step *step, uint32_t op, uint32_t items, uint32_t index) {
    uint64_t n = step->num_shares, round_up = n - 1;
    return (Share){
        .cursor = &step->cursors[index].next,
        .op = op + 1,
        .begin = (uint32_t)((items * (uint64_t)index + round_up) / n),
        .end = (uint32_t)((items * (uint64_t)(index + 1) + round_up) / n),
    };
}

// Claims few of one's own items, and half of what is left of another's. 0: none are left.
static uint32_t claim(const Share *share, int own, uint32_t least, uint32_t *first) {
    uint64_t cursor = atomic_get(share->cursor);
    while (cursor >> 32 <= share->op) {
        *first = cursor >> 32 == share->op ? (uint32_t)cursor : share->begin;
        if (*first == share->end) return 0;
        uint32_t left = share->end - *first, count = MIN(own ? least : MAX(left / 2, least), left);
        uint64_t next = (uint64_t)share->op << 32 | (*first + count);
        if (atomic_swap_if(share->cursor, &cursor, next)) return count;
    }
    return 0;  // the op is over, and others are further
}

#define WAIT_SPINS (25 * SPINS_PER_US)  // longer means that the thread we wait for is not running

// Until every item of the op is done. Returns the time lost beyond what work in step would cost.
static uint64_t await_items(const Progress *progress, uint32_t items) {
    for (int i = 0; i < WAIT_SPINS; i++) {
        if (atomic_get(&progress->done) == items) return 0;
        relax();
    }
    uint64_t start = now_ns();
    while (atomic_get(&progress->done) != items) give_way();
    return now_ns() - start;
}

#define NOTICED_LOSS_NS 500000  // half a millisecond

// Waiting through a quarter of the time means that a thread lacks a core: go on with fewer.
static void shed_threads(Step *step, uint64_t lost_ns) {
    uint64_t now = now_ns();
    step->lost_ns += lost_ns;
    if (step->num_threads == 1) return;
    if (step->lost_ns < NOTICED_LOSS_NS || step->lost_ns * 4 < now - step->since_ns) return;
    atomic_set(&step->num_threads, step->num_threads - (step->num_threads + 3) / 4);
    step->since_ns = now;
    step->lost_ns = 0;
}
