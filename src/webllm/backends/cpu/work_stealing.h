// Work stealing: how the threads of a step divide the items of an op, and the barrier after it.
//
// An op's items are divided into one share for each thread. A thread first works through its own
// share from front to back, so that it reads memory in one stream: two threads that alternate get
// half the bandwidth. Then it steals from the shares of others.

#pragma once
#include "ops.h"
#include "simd.h"
#include "threads.h"

typedef struct {
    uint64_t *cursor;  // op number << 32 | next item; if of an earlier op, nothing is claimed yet
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

// Claims `min_count` items of the thread's own share, or half of the rest of another's share, and
// stores the first of them. Returns how many; 0 if none is left.
static uint32_t claim(const Share *share, int own, uint32_t min_count, uint32_t *first) {
    uint64_t cursor = atomic_get(share->cursor);
    while (cursor >> 32 <= share->op) {
        *first = cursor >> 32 == share->op ? (uint32_t)cursor : share->begin;
        if (*first == share->end) return 0;
        uint32_t left = share->end - *first;
        uint32_t count = MIN(own ? min_count : MAX(left / 2, min_count), left);
        uint64_t next = (uint64_t)share->op << 32 | (*first + count);
        if (atomic_swap_if(share->cursor, &cursor, next)) return count;
    }
    return 0;  // the other threads have finished this op and begun the next
}

#define BARRIER_SPINS (25 * SPINS_PER_US)  // after these, the awaited thread has lost its core

// Waits until every item of the op is done. Returns the time waited after BARRIER_SPINS.
static uint64_t barrier(const Progress *progress, uint32_t items) {
    for (int i = 0; i < BARRIER_SPINS; i++) {
        if (atomic_get(&progress->done) == items) return 0;
        cpu_relax();
    }
    uint64_t start = now_ns();
    while (atomic_get(&progress->done) != items) thread_yield();
    return now_ns() - start;
}

#define MIN_LOSS_NS 500000  // half a millisecond: shorter waits are ignored

// Continues with three quarters of the threads if a quarter of the time was spent waiting: some
// thread then has no core of its own.
static void drop_threads(Step *step, uint64_t lost_ns) {
    uint64_t now = now_ns();
    step->lost_ns += lost_ns;
    if (step->num_threads == 1) return;
    if (step->lost_ns < MIN_LOSS_NS || step->lost_ns * 4 < now - step->since_ns) return;
    atomic_set(&step->num_threads, step->num_threads - (step->num_threads + 3) / 4);
    step->since_ns = now;
    step->lost_ns = 0;
}
