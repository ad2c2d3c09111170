// A thread pool. The caller of pool_run() works as well, and never waits for a worker to wake up.
//
// A task is a function that every thread enters. Threads claim pieces of it through atomic
// counters, so while a worker is late or descheduled the others claim more.

#pragma once
#include <stdint.h>
#include "system.h"

#define MAX_THREADS 64

typedef void (*PoolTask)(void *argument, uint32_t thread);

#define IDLE_SPINS (50 * SPINS_PER_US)  // about the time between two decode steps

typedef struct Pool Pool;
typedef struct {
    Pool *pool;
    uint32_t id;
    Thread thread;
} Worker;

struct Pool {
    uint32_t num_threads;
    uint32_t num_active;  // threads that take part, the caller included; adapt_threads() sets it
    uint64_t backoff_ns, retry_at_ns, all_since_ns;  // state of adapt_threads()
    PoolTask task;
    void *argument;
    void *allocation;  // the address to free
    _Alignas(64) uint32_t gate;  // odd while a task is open
    _Alignas(64) uint32_t num_inside;  // workers between their look at the gate and the task's end
    _Alignas(64) uint32_t num_asleep;
    uint32_t stopping;
    Mutex mutex;
    Condition wake;
    Worker workers[MAX_THREADS];
};

static inline int gate_opened(Pool *pool, uint32_t seen) {
    uint32_t gate = atomic_get(&pool->gate);
    return ((gate & 1) && gate != seen) || atomic_get(&pool->stopping);
}

static inline void await_gate(Pool *pool, uint32_t seen) {
    for (int i = 0; i < IDLE_SPINS; i++) {
        if (gate_opened(pool, seen)) return;
        cpu_relax();
    }
    mutex_lock(&pool->mutex);
    atomic_add(&pool->num_asleep, 1);
    while (!gate_opened(pool, seen)) condition_wait(&pool->wake, &pool->mutex);
    atomic_add(&pool->num_asleep, -1u);
    mutex_unlock(&pool->mutex);
}

static void work(Worker *worker) {
    Pool *pool = worker->pool;
    uint32_t seen = 0;
    for (;;) {
        await_gate(pool, seen);
        if (atomic_get(&pool->stopping)) return;
        atomic_add(&pool->num_inside, 1);  // before looking at the gate: pool_run waits for it
        seen = atomic_get(&pool->gate);
        if ((seen & 1) && worker->id < pool->num_active) pool->task(pool->argument, worker->id);
        atomic_add(&pool->num_inside, -1u);
    }
}

static inline void wake_workers(Pool *pool) {
    if (!atomic_get(&pool->num_asleep)) return;
    mutex_lock(&pool->mutex);
    condition_broadcast(&pool->wake);
    mutex_unlock(&pool->mutex);
}

static inline void stop_workers(Pool *pool) {
    mutex_lock(&pool->mutex);
    atomic_set(&pool->stopping, 1);
    condition_broadcast(&pool->wake);
    mutex_unlock(&pool->mutex);
}

// Runs the task on this thread and on the active workers; on return no worker is in it.
static inline void pool_run(Pool *pool, PoolTask task, void *argument) {
    pool->task = task;
    pool->argument = argument;
    if (pool->num_active > 1) {
        atomic_add(&pool->gate, 1);
        wake_workers(pool);
    }
    task(argument, 0);
    if (pool->num_active > 1) atomic_add(&pool->gate, 1);
    while (atomic_get(&pool->num_inside)) thread_yield();
}
