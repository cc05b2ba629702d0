/* Sixteen floats at once, as GCC's and Clang's vector types: one source, which the compiler lowers to the registers of
 * the target (one of AVX-512, two of AVX, four of NEON or SSE). Included once per target, with ON(name) to tell the
 * copies apart and TARGET to say what they may use.
 */
#ifndef FOURBIT_VECTORS_H
#define FOURBIT_VECTORS_H
#include "half.h"

enum { LANES = 16 };
typedef float Lanes __attribute__((vector_size(64)));
typedef int32_t Ints __attribute__((vector_size(64)));
typedef float LooseLanes __attribute__((vector_size(64), aligned(4), may_alias)); /* at any address of a float */
#endif

INLINE TARGET Lanes ON(load)(const float *at) { return *(const LooseLanes *)at; }
INLINE TARGET void ON(save)(float *at, Lanes x) { *(LooseLanes *)at = x; }
INLINE TARGET Lanes ON(all)(float x) { return (Lanes){0} + x; }
INLINE TARGET Lanes ON(choose)(Ints mask, Lanes yes, Lanes no) { return (Lanes)(((Ints)yes & mask) | ((Ints)no & ~mask)); }

INLINE TARGET float ON(total)(Lanes x) {
    float part[8], sum = 0;
    for (int i = 0; i < 8; i++) part[i] = x[i] + x[i + 8];
    for (int i = 0; i < 4; i++) sum += part[i] + part[i + 4];
    return sum;
}

/* exp(x): 2^n * exp(r) with |r| <= ln(2)/2, the exponential of r by its Taylor polynomial of degree 7 (error below
 * 2^-27 of the value; with rounding, 2 units in the last place). Below -87.3 the result is 0, NaN stays NaN. */
INLINE TARGET Lanes ON(exponential)(Lanes x) {
    Lanes kept = ON(choose)(x > -87.3f, x, ON(all)(-87.3f)), high = ON(choose)(kept < 88.7f, kept, ON(all)(88.7f));
    Lanes n = (high * 1.44269504f + 12582912.0f) - 12582912.0f;
    Lanes r = (high - n * 0.693359375f) + n * 2.12194440e-4f;
    Lanes p = ON(all)(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    Ints half = __builtin_convertvector(n, Ints) / 2, rest = __builtin_convertvector(n, Ints) - half;
    Lanes value = p * (Lanes)((half + 127) << 23) * (Lanes)((rest + 127) << 23);
    Lanes small = ON(choose)(x < -87.3f, ON(all)(0), value);
    return ON(choose)(x == x, small, x);
}
