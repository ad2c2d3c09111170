// XXH64 with seed 0, as in the xxHash specification by Yann Collet ("XXH64 algorithm description",
// doc/xxhash_spec.md of the xxHash repository). It notices damage, not forgery. Python calls it
// natively, and stores.js as WebAssembly. All machines here are little-endian.

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the checksum reads little-endian words"
#endif

#define P1 0x9E3779B185EBCA87u
#define P2 0xC2B2AE3D27D4EB4Fu
#define P3 0x165667B19E3779F9u
#define P4 0x85EBCA77C2B2AE63u
#define P5 0x27D4EB2F165667C5u

static inline uint64_t rotate(uint64_t value, int bits) {
    return value << bits | value >> (64 - bits);
}

static inline uint64_t load64(const uint8_t *at) {  // from any address
    uint64_t word;
    __builtin_memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t load32(const uint8_t *at) {
    uint32_t word;
    __builtin_memcpy(&word, at, sizeof word);
    return word;
}

static inline uint64_t mix(uint64_t lane, uint64_t word) {  // "round" in the specification
    return rotate(lane + word * P2, 31) * P1;
}

static inline uint64_t merge(uint64_t hash, uint64_t lane) {
    return (hash ^ mix(0, lane)) * P1 + P4;
}

// Consumes all whole stripes of 32 bytes; *at ends behind them.
static inline uint64_t hash_stripes(const uint8_t **at, const uint8_t *end) {
    uint64_t a = P1 + P2, b = P2, c = 0, d = 0 - P1;
    do {
        a = mix(a, load64(*at));
        b = mix(b, load64(*at + 8));
        c = mix(c, load64(*at + 16));
        d = mix(d, load64(*at + 24));
        *at += 32;
    } while (end - *at >= 32);
    uint64_t hash = rotate(a, 1) + rotate(b, 7) + rotate(c, 12) + rotate(d, 18);
    return merge(merge(merge(merge(hash, a), b), c), d);
}

static inline uint64_t hash_tail(uint64_t hash, const uint8_t *at, const uint8_t *end) {
    for (; end - at >= 8; at += 8) hash = rotate(hash ^ mix(0, load64(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        hash = rotate(hash ^ load32(at) * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++) hash = rotate(hash ^ *at * P5, 11) * P1;
    return hash;
}

EXPORT uint64_t xxh64(const uint8_t *data, size_t num_bytes) {
    const uint8_t *at = data, *end = data + num_bytes;
    uint64_t hash = num_bytes >= 32 ? hash_stripes(&at, end) : P5;
    hash = hash_tail(hash + num_bytes, at, end);
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}
