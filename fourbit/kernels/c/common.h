/* The types that all files share, and the few things C lacks on one compiler or another. */
#ifndef FOURBIT_COMMON_H
#define FOURBIT_COMMON_H

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define INLINE static inline __attribute__((always_inline))

/* What several files need stands in headers, as static functions; no file uses all of them. */
#pragma GCC diagnostic ignored "-Wunused-function"

/* Activations are rounded to 8 bits in blocks of 32; formats scale 32 or 16 weights together. */
enum { BLOCK = 32, HALF_BLOCK = 16, SUPER = 256 };

/* Up to so many tokens each is computed as it would be alone; more are computed together, in another order of additions. */
enum { FEW_TOKENS = 3 };

/* How a matrix is stored. formats.h describes each. The order is that of KINDS in matrix.py. */
enum Kind { F32, F16, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K, Q6_K, GROUP4, GROUP8, KINDS };

/* A matrix (rows, columns) as its file has it. `scale` and `zero` (rows, groups) belong to GROUP4 and GROUP8. */
typedef struct {
    int64_t kind, rows, columns, row_bytes, group, groups;
    const uint8_t *data;
    const uint8_t *scale; /* float16, at any address: a mapped file promises no alignment */
    const uint8_t *zero;
} Matrix;

/* Activations of `tokens` tokens: x = scale * code + rounding, in `blocks` blocks of 32 per token (padded with zeros). */
typedef struct {
    int64_t tokens, blocks, columns;
    const float *exact;  /* (tokens, columns), what was rounded */
    int8_t *codes;       /* (tokens, 32 * blocks) */
    int8_t *arranged[2]; /* the same in other orders, for an instruction set that wants them; see activations.h */
    float *scale;        /* (tokens, blocks) */
    float *sum;          /* (tokens, blocks): scale * the sum of the block's codes */
    int32_t *code_sum;   /* (tokens, blocks): that sum, not scaled */
    int32_t *half_sum;   /* (tokens, 2 * blocks): the sums of 16 codes */
    int64_t copies;      /* how often `again` has them behind one another; 0 where it has none */
    int64_t again;       /* the first block of the copies, counted from the arrays' beginning */
} Activations;

/* Keys or values of one layer: (kv_heads, capacity) rows of row_bytes, one row a token's head. */
enum CacheKind { CACHE_F32, CACHE_F16, CACHE_Q8, CACHE_Q4, CACHE_KINDS };

typedef struct {
    int64_t kind, kv_heads, capacity, width, row_bytes;
    uint8_t *keys, *values;
} CacheLayer;

INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

/* malloc for wide loads: 64 bytes is a cache line, and the widest register. */
INLINE void *aligned_bytes(int64_t bytes) {
#ifdef _WIN32
    return _aligned_malloc((size_t)rounded_up(bytes, 64), 64);
#else
    void *memory = NULL;
    return posix_memalign(&memory, 64, (size_t)rounded_up(bytes, 64)) ? NULL : memory;
#endif
}

INLINE void aligned_free(void *memory) {
#ifdef _WIN32
    _aligned_free(memory);
#else
    free(memory);
#endif
}

#endif
