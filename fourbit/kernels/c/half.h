/* float16 <-> float32 without hardware: 1 sign, 5 exponent, 10 fraction bits (IEEE 754-2008, binary16). */
#ifndef FOURBIT_HALF_H
#define FOURBIT_HALF_H

#include "common.h"

INLINE float bits_to_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t float_to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

/* Exponents have bias 15 there and 127 here: add 112, shifted to its place. Below 2^-14 a half is a count of 2^-24. */
INLINE float half_to_float(uint16_t half) {
    uint32_t rest = half & 0x7fff, sign = (uint32_t)(half & 0x8000) << 16;
    uint32_t normal = (rest << 13) + (rest >= 0x7c00 ? 0x70000000u : 0x38000000u); /* 0x7c00: infinity, NaN */
    float small = (float)rest * 0x1p-24f;
    return bits_to_float((rest < 0x400 ? float_to_bits(small) : normal) | sign);
}

/* Round to nearest, ties to even: the hardware adds the float whose last place is the half's last place. */
INLINE uint16_t float_to_half(float value) {
    uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00); /* NaN */
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00); /* 65520 and more round to infinity */
    if (rest < 0x38800000) { /* below 2^-14: 0.5 has its last place at 2^-24 */
        float shifted = bits_to_float(rest) + 0.5f;
        return (uint16_t)(sign | (float_to_bits(shifted) - 0x3f000000));
    }
    return (uint16_t)(sign | ((rest - 0x38000000 + 0xfff + (rest >> 13 & 1)) >> 13));
}

INLINE float load_half(const uint8_t *at) {
    uint16_t half;
    memcpy(&half, at, 2);
    return half_to_float(half);
}

#endif
