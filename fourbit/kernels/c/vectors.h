/* LANES floats at once, as the vector types of GCC and Clang: one source for the registers of every target (AVX-512: 16
 * floats, AVX: 8, NEON and SSE: 4). Included once per target, with LANES, ON(name) to tell the copies apart, and TARGET to say
 * what they may use.
 */
#ifndef FOURBIT_VECTORS_H
#define FOURBIT_VECTORS_H
#include "half.h"
typedef float Quarter __attribute__((vector_size(16)));
#endif

#define Lanes ON(Floats)
#define Ints ON(Ints)
#define LooseLanes ON(LooseFloats)
typedef float Lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));
typedef float LooseLanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* at any address of a float */

INLINE TARGET Lanes ON(load)(const float *at) { return *(const LooseLanes *)at; }
INLINE TARGET void ON(save)(float *at, Lanes x) { *(LooseLanes *)at = x; }
INLINE TARGET Lanes ON(all)(float x) { return (Lanes){0} + x; }
INLINE TARGET Lanes ON(choose)(Ints mask, Lanes yes, Lanes no) { return (Lanes)(((Ints)yes & mask) | ((Ints)no & ~mask)); }

INLINE TARGET float ON(total)(Lanes x) {
    Quarter parts[LANES / 4], sum; /* halved within registers: lane by lane it would take as long as a whole row */
    memcpy(parts, &x, sizeof x);
    for (int n = LANES / 8; n; n /= 2)
        for (int i = 0; i < n; i++) parts[i] += parts[i + n];
    sum = parts[0];
    return (sum[0] + sum[2]) + (sum[1] + sum[3]);
}

/* exp(x): 2^n * exp(r) with |r| <= ln(2)/2, the exponential of r by its Taylor polynomial of degree 7 (error below
 * 2^-27 of the value; with rounding, 2 units in the last place). Below -87.3 the result is 0,
 * above 88.7 infinity; NaN stays NaN. */
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
    value = ON(choose)(x < -87.3f, ON(all)(0), value);
    value = ON(choose)(x > 88.7f, ON(all)(INFINITY), value);
    return ON(choose)(x == x, value, x);
}
