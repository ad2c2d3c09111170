// A thread pool whose caller works too and never waits for a helper that has not woken up.
//
// A job is a function that every thread enters; threads claim pieces of it through atomic
// counters, so a helper that is late or descheduled only means that others claim more.

#pragma once
#include <stdint.h>

#define atomic_get(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define atomic_set(p, value) __atomic_store_n(p, value, __ATOMIC_SEQ_CST)
#define atomic_add(p, value) __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST)
#define atomic_swap_if(p, expected, value) \
    __atomic_compare_exchange_n(p, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#if defined(__x86_64__) || defined(__i386__)
#define relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define relax() __asm__ volatile("yield")
#else
#define relax() ((void)0)
#endif

#define MAX_THREADS 64

typedef void (*Job)(void *argument, uint32_t thread);

#if defined(__wasm__)  // one thread

typedef struct {
    uint32_t active;
} Pool;

static inline void pool_run(Pool *pool, Job job, void *argument) {
    (void)pool;
    job(argument, 0);
}
static inline void give_way(void) {}
static inline uint64_t now_ns(void) { return 0; }

#else

#include <stdlib.h>
#if defined(_WIN32)
#include <windows.h>
typedef HANDLE Thread;
typedef SRWLOCK Mutex;
typedef CONDITION_VARIABLE Condition;
#define THREAD_RESULT DWORD WINAPI
static inline int thread_start(Thread *thread, DWORD(WINAPI *entry)(void *), void *argument) {
    *thread = CreateThread(0, 0, entry, argument, 0, 0);
    return *thread ? 0 : -1;
}
static inline void thread_join(Thread thread) {
    WaitForSingleObject(thread, INFINITE);
    CloseHandle(thread);
}
#define mutex_init InitializeSRWLock
#define mutex_lock AcquireSRWLockExclusive
#define mutex_unlock ReleaseSRWLockExclusive
#define condition_init InitializeConditionVariable
#define condition_wait(condition, mutex) SleepConditionVariableSRW(condition, mutex, INFINITE, 0)
#define condition_broadcast WakeAllConditionVariable
static inline void give_way(void) { SwitchToThread(); }
static inline uint64_t now_ns(void) {
    LARGE_INTEGER ticks, rate;
    QueryPerformanceCounter(&ticks);
    QueryPerformanceFrequency(&rate);
    return (uint64_t)((double)ticks.QuadPart / (double)rate.QuadPart * 1e9);
}
#else
#include <pthread.h>
#include <sched.h>
#include <time.h>
typedef pthread_t Thread;
typedef pthread_mutex_t Mutex;
typedef pthread_cond_t Condition;
#define THREAD_RESULT void *
static inline int thread_start(Thread *thread, void *(*entry)(void *), void *argument) {
    return pthread_create(thread, 0, entry, argument);
}
static inline void thread_join(Thread thread) { pthread_join(thread, 0); }
#define mutex_init(mutex) pthread_mutex_init(mutex, 0)
#define mutex_lock pthread_mutex_lock
#define mutex_unlock pthread_mutex_unlock
#define condition_init(condition) pthread_cond_init(condition, 0)
#define condition_wait pthread_cond_wait
#define condition_broadcast pthread_cond_broadcast
static inline void give_way(void) { sched_yield(); }
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif

#define IDLE_SPINS 4000  // some 50 us: the time between two decode steps, not more

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

static THREAD_RESULT helper_main(void *argument) {
    Helper *helper = argument;
    Pool *pool = helper->pool;
    uint32_t seen = 0;
    for (;;) {
        await_gate(pool, seen);
        if (atomic_get(&pool->stopping)) return 0;
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

#endif
