// A thread pool whose caller works too and never waits for a helper that has not woken up.
//
// A job is a function that every thread enters; threads claim pieces of it through atomic
// counters, so a helper that is late or descheduled only means that others claim more.

#pragma once
#include <stdint.h>
#include "system.h"

#define MAX_THREADS 64

typedef void (*Job)(void *argument, uint32_t thread);

#define IDLE_SPINS (50 * SPINS_PER_US)  // the time between two decode steps, not more

typedef struct Pool Pool;
typedef struct {
    Pool *pool;
    uint32_t id;
    Thread thread;
} Helper;

struct Pool {
    uint32_t num_threads;
    uint32_t active;  // threads that take part, the caller included; adapt_threads() sets it
    uint64_t hold_ns, held_until, all_since;  // of adapt_threads(); times of now_ns()
    Job job;
    void *argument;
    void *allocation;  // what is freed
    _Alignas(64) uint32_t gate;  // odd: a job is open
    _Alignas(64) uint32_t inside;  // helpers between their look at the gate and the job's end
    _Alignas(64) uint32_t asleep;
    uint32_t stopping;
    Mutex mutex;
    Condition wake;
    Helper helpers[MAX_THREADS];
};

static inline int gate_opened(Pool *pool, uint32_t seen) {
    uint32_t gate = atomic_get(&pool->gate);
    return ((gate & 1) && gate != seen) || atomic_get(&pool->stopping);
}

static inline void await_gate(Pool *pool, uint32_t seen) {
    for (int i = 0; i < IDLE_SPINS; i++) {
        if (gate_opened(pool, seen)) return;
        relax();
    }
    mutex_lock(&pool->mutex);
    atomic_add(&pool->asleep, 1);
    while (!gate_opened(pool, seen)) condition_wait(&pool->wake, &pool->mutex);
    atomic_add(&pool->asleep, -1u);
    mutex_unlock(&pool->mutex);
}

static void help(Helper *helper) {
    Pool *pool = helper->pool;
    uint32_t seen = 0;
    for (;;) {
        await_gate(pool, seen);
        if (atomic_get(&pool->stopping)) return;
        atomic_add(&pool->inside, 1);  // before the look at the gate: pool_run waits for `inside`
        seen = atomic_get(&pool->gate);
        if ((seen & 1) && helper->id < pool->active) pool->job(pool->argument, helper->id);
        atomic_add(&pool->inside, -1u);
    }
}

static inline void wake_helpers(Pool *pool) {
    if (!atomic_get(&pool->asleep)) return;
    mutex_lock(&pool->mutex);
    condition_broadcast(&pool->wake);
    mutex_unlock(&pool->mutex);
}

static inline void stop_helpers(Pool *pool) {
    mutex_lock(&pool->mutex);
    atomic_set(&pool->stopping, 1);
    condition_broadcast(&pool->wake);
    mutex_unlock(&pool->mutex);
}

// Runs the job on this thread and on the active helpers; nobody is inside it on return.
static inline void pool_run(Pool *pool, Job job, void *argument) {
    pool->job = job;
    pool->argument = argument;
    if (pool->active > 1) {
        atomic_add(&pool->gate, 1);
        wake_helpers(pool);
    }
    job(argument, 0);
    if (pool->active > 1) atomic_add(&pool->gate, 1);
    while (atomic_get(&pool->inside)) give_way();
}
