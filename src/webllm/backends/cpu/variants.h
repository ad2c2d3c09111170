// Finds which compiled variants of this library run on this machine.

#pragma once
#include <stdint.h>

// Returns bit i for the i-th variant in native_library.py's list for this kind of CPU.
#if defined(__x86_64__)
#include <cpuid.h>
static uint32_t variants_of_this_cpu(void) {
    uint32_t a, b, c, d, a1 = 0, b1, c1, d1, low, high;
    if (!__get_cpuid(1, &a, &b, &c, &d)) return 1;
    int fma = c >> 12 & 1, osxsave = c >> 27 & 1, f16c = c >> 29 & 1;
    if (!fma || !osxsave || !f16c || !__get_cpuid_count(7, 0, &a, &b, &c, &d)) return 1;
    if (a) __get_cpuid_count(7, 1, &a1, &b1, &c1, &d1);
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    uint32_t ymm = (low & 6) == 6, zmm = (low & 0xe6) == 0xe6;
    uint32_t avx2 = ymm & b >> 5;
    uint32_t avx512 = zmm & b >> 16 & b >> 17 & b >> 30 & b >> 31;  // F DQ BW VL
    return 1 | (avx2 & 1) << 1 | (avx2 & a1 >> 4 & 1) << 2 | (avx512 & c >> 11 & 1) << 3;
}
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
static uint32_t variants_of_this_cpu(void) {
    return 1 | (uint32_t)(getauxval(AT_HWCAP) >> 20 & 1) << 1;  // HWCAP_ASIMDDP
}
#elif defined(__aarch64__)
static uint32_t variants_of_this_cpu(void) { return 3; }  // every Apple and Windows Arm CPU has it
#else
static uint32_t variants_of_this_cpu(void) { return 1; }
#endif
