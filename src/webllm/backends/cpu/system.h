// Threads, locks and clocks of Windows, POSIX and WebAssembly under common names.

#pragma once
#include <stdint.h>

#define atomic_get(p) __atomic_load_n(p, __ATOMIC_SEQ_CST)
#define atomic_set(p, value) __atomic_store_n(p, value, __ATOMIC_SEQ_CST)
#define atomic_add(p, value) __atomic_fetch_add(p, value, __ATOMIC_SEQ_CST)
#define atomic_swap(p, value) __atomic_exchange_n(p, value, __ATOMIC_SEQ_CST)
#define atomic_swap_if(p, expected, value) \
    __atomic_compare_exchange_n(p, expected, value, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)

#define SPINS_PER_US 80  // roughly, with one cpu_relax() each
#if defined(__x86_64__) || defined(__i386__)
#define cpu_relax() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define cpu_relax() __asm__ volatile("yield")
#else
#define cpu_relax() ((void)0)
#endif

#if defined(__wasm__)  // threads are Web Workers on one shared memory, started by Python
#undef SPINS_PER_US
#define SPINS_PER_US 800

#if defined(__wasm_atomics__)
#define FOREVER (-1ll)
#define YIELD_NS 20000
__attribute__((import_module("host"), import_name("now"))) double host_now_ms(void);
static inline void sleep_while(uint32_t *word, uint32_t value, int64_t max_ns) {
    __builtin_wasm_memory_atomic_wait32((int *)word, (int)value, max_ns);
}
static inline void wake_sleepers(uint32_t *word, uint32_t max_count) {
    __builtin_wasm_memory_atomic_notify((int *)word, max_count);
}
static inline void thread_yield(void) {
    static uint32_t never_notified;
    sleep_while(&never_notified, 0, YIELD_NS);
}
static inline uint64_t now_ns(void) { return (uint64_t)(host_now_ms() * 1e6); }
#else
#define FOREVER 0
#define sleep_while(word, value, max_ns) ((void)0)
#define wake_sleepers(word, max_count) ((void)0)
static inline void thread_yield(void) {}
static inline uint64_t now_ns(void) { return 0; }
#endif

typedef struct {
    char unused;
} Thread;
typedef uint32_t Mutex;      // 1 while locked
typedef uint32_t Condition;  // number of broadcasts
static inline void mutex_lock(Mutex *mutex) {
    while (atomic_swap(mutex, 1)) sleep_while(mutex, 1, FOREVER);
}
static inline void mutex_unlock(Mutex *mutex) {
    atomic_set(mutex, 0);
    wake_sleepers(mutex, 1);
}
static inline void condition_wait(Condition *condition, Mutex *mutex) {
    uint32_t seen = atomic_get(condition);
    mutex_unlock(mutex);
    sleep_while(condition, seen, FOREVER);
    mutex_lock(mutex);
}
static inline void condition_broadcast(Condition *condition) {
    atomic_add(condition, 1);
    wake_sleepers(condition, -1u);
}

#elif defined(_WIN32)
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
static inline void thread_yield(void) { SwitchToThread(); }
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
static inline void thread_yield(void) { sched_yield(); }
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
#endif
