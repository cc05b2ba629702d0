/* Units of weights on AVX-512: 16 blocks of 32 columns (Q6_K: 16 half blocks), unpacked in registers.
 *
 * For one token (rows_avx512.h) and for many (tiles_avx512.c) alike: 16 scales, and 64 codes at a time in the order of the
 * columns, unsigned.
 */
#if defined(__x86_64__) || defined(_M_X64)
#ifndef FOURBIT_UNITS_AVX512_H
#define FOURBIT_UNITS_AVX512_H

#include <immintrin.h>

#include "isa.h"

#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")))

enum { UNIT = 16 };

/* Bytes of a unit. */
INLINE int64_t unit_bytes(int64_t kind) {
    return kind == GROUP4 ? 256 : kind == GROUP8 ? 512 : kind == Q6_K ? 210 : 512 / FORMATS[kind].columns * FORMATS[kind].bytes;
}

INLINE TARGET __m512 halves_to_floats(__m128i a, __m128i b) {
    return _mm512_cvtph_ps(_mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1));
}

/* 16 halves that lie 18 bytes apart, as floats. */
INLINE TARGET __m512 scales_q4_0(const uint8_t *w) {
    const __m512i words = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 59, 50, 41,
                                           32, 27, 18, 9, 0);
    __m512i a = _mm512_permutex2var_epi16(_mm512_loadu_si512(w), words, _mm512_loadu_si512(w + 72));
    __m512i b = _mm512_permutex2var_epi16(_mm512_loadu_si512(w + 144), words, _mm512_loadu_si512(w + 216));
    return halves_to_floats(_mm512_castsi512_si128(a), _mm512_castsi512_si128(b));
}

/* 16 pairs of halves that lie 20 bytes apart. */
INLINE TARGET __m512 scales_q4_1(const uint8_t *w, __m512 *least) {
    const __m512i words = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 63, 53, 43, 33, 31, 21, 11, 1, 62, 52,
                                           42, 32, 30, 20, 10, 0);
    __m512i a = _mm512_permutex2var_epi16(_mm512_loadu_si512(w), words, _mm512_loadu_si512(w + 80));
    __m512i b = _mm512_permutex2var_epi16(_mm512_loadu_si512(w + 160), words, _mm512_loadu_si512(w + 240));
    __m256i c = _mm512_castsi512_si256(a), d = _mm512_castsi512_si256(b);
    *least = _mm512_cvtph_ps(_mm256_permute2x128_si256(c, d, 0x31));
    return _mm512_cvtph_ps(_mm256_permute2x128_si256(c, d, 0x20));
}

INLINE TARGET __m512 scales_q8_0(const uint8_t *w) {
    uint16_t d[UNIT];
    for (int b = 0; b < UNIT; b++) memcpy(d + b, w + 34 * b, 2);
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)d));
}

/* 64 bytes whose lower half holds 32 bytes shifted right by `low`, whose upper half the same shifted by `high`. */
INLINE TARGET __m512i twice_shifted(const uint8_t *bytes, int low, int high) {
    __m512i both = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)bytes));
    __m512i counts = _mm512_inserti64x4(_mm512_set1_epi16((short)low), _mm256_set1_epi16((short)high), 1);
    return _mm512_srlv_epi16(both, counts);
}

/* Lanes 0-7: the bytes of `a` times its half-precision factor at `half`; lanes 8-15: those of `b`. */
INLINE TARGET __m512 scaled_bytes(uint64_t a, const uint8_t *half_a, uint64_t b, const uint8_t *half_b) {
    __m512 bytes = _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_set_epi64x((long long)b, (long long)a)));
    uint16_t one, two;
    memcpy(&one, half_a, 2);
    memcpy(&two, half_b, 2);
    __m512 factors = halves_to_floats(_mm_set1_epi16((short)one), _mm_set1_epi16((short)two));
    return _mm512_mul_ps(bytes, factors);
}

INLINE TARGET __m512 scales_q45_k(const uint8_t *w, int64_t bytes, __m512 *least) {
    uint64_t scales[2], minima[2];
    for (int i = 0; i < 2; i++) six_bits_at_once(w + i * bytes + 4, scales + i, minima + i);
    *least = _mm512_sub_ps(_mm512_setzero_ps(), scaled_bytes(minima[0], w + 2, minima[1], w + bytes + 2));
    return scaled_bytes(scales[0], w, scales[1], w + bytes);
}

INLINE TARGET __m512 scales_q6_k(const uint8_t *w) {
    __m512 scale = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(w + 192))));
    uint16_t d;
    memcpy(&d, w + 208, 2);
    return _mm512_mul_ps(scale, _mm512_cvtph_ps(_mm256_set1_epi16((short)d)));
}

/* The scales, and least = -scale * zero, of 16 blocks from block `first` on; blocks behind the last group get zeros. */
INLINE TARGET __m512 scales_group(const Matrix *m, int64_t row, int64_t first, __m512 *least) {
    int64_t wide = m->group >= m->columns ? INT32_MAX : m->group / BLOCK, from = first / wide;
    __m512i block = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    if (wide > 1) { /* 16 small numbers divided: exact in float after adding a half */
        __m512 number = _mm512_cvtepi32_ps(_mm512_add_epi32(block, _mm512_set1_epi32((int)(first % wide))));
        __m512 share = _mm512_mul_ps(_mm512_add_ps(number, _mm512_set1_ps(0.5f)), _mm512_set1_ps(1.0f / (float)wide));
        block = _mm512_cvttps_epi32(share);
    }
    __mmask16 there = (__mmask16)((1u << smaller(UNIT, m->groups - from)) - 1);
    const uint8_t *at = m->scale + 2 * (row * m->groups + from);
    __m512 scales = _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(there, at));
    __m128i zeros = _mm_maskz_loadu_epi8(there, m->zero + row * m->groups + from);
    __m512 away = _mm512_mul_ps(scales, _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(zeros)));
    *least = _mm512_permutexvar_ps(block, _mm512_sub_ps(_mm512_setzero_ps(), away));
    return _mm512_permutexvar_ps(block, scales);
}

/* The scales of a unit, and what is added to each weight; `w` are the unit's bytes. */
INLINE TARGET __m512 scales_of(int kind, const Matrix *m, int64_t row, int64_t unit, const uint8_t *w, __m512 *least) {
    switch (kind) {
    case Q8_0: return scales_q8_0(w);
    case Q4_0: return scales_q4_0(w);
    case Q4_1: return scales_q4_1(w, least);
    case Q4_K: return scales_q45_k(w, 144, least);
    case Q5_K: return scales_q45_k(w, 176, least);
    case Q6_K: return scales_q6_k(w);
    default: return scales_group(m, row, unit * UNIT, least);
    }
}

INLINE TARGET __m512i codes_q45_k(const uint8_t *super, int64_t bytes, int pair) {
    __m512i codes = twice_shifted(super + bytes - 128 + 32 * pair, 0, 4);
    codes = _mm512_and_si512(codes, _mm512_set1_epi8(15));
    if (bytes == 144) return codes;
    __m512i fifth = twice_shifted(super + 16, 2 * pair, 2 * pair + 1);
    __mmask64 set = _mm512_test_epi8_mask(fifth, _mm512_set1_epi8(1));
    return _mm512_mask_add_epi8(codes, set, codes, _mm512_set1_epi8(16));
}

/* Two low bits above four: columns 0-63 of each 128 have theirs in the low halves, shifted 0 and 2; the others above. */
INLINE TARGET __m512i codes_q6_k(const uint8_t *w, int i) {
    const __m512i low = _mm512_set1_epi8(15), upper = _mm512_set1_epi8(0x30);
    const __m512i left = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
    __m512i bytes = _mm512_loadu_si512(w + 64 * (i / 2));
    const uint8_t *high = w + 128 + 32 * (i / 2);
    if (i % 2) {
        __m512i shifted = _mm512_and_si512(twice_shifted(high, 0, 2), upper);
        return _mm512_or_si512(_mm512_and_si512(_mm512_srli_epi16(bytes, 4), low), shifted);
    }
    __m512i two = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)high));
    return _mm512_or_si512(_mm512_and_si512(bytes, low), _mm512_and_si512(_mm512_sllv_epi16(two, left), upper));
}

/* Codes of columns 64 i ... 64 i + 63 of a unit, in the order of the columns, unsigned. */
INLINE TARGET __m512i codes_of(int kind, const uint8_t *w, int i) {
    const __m512i halves = _mm512_set_epi64(0x0004000400040004, 0x0004000400040004, 0, 0, 0x0004000400040004,
                                            0x0004000400040004, 0, 0);
    const int64_t bytes = FORMATS[kind].bytes, at = bytes - (kind == Q8_0 ? 32 : 16);
    if (kind == Q8_0) {
        __m256i one = _mm256_loadu_si256((const __m256i *)(w + 2 * i * bytes + at));
        __m256i two = _mm256_loadu_si256((const __m256i *)(w + (2 * i + 1) * bytes + at));
        __m512i both = _mm512_inserti64x4(_mm512_castsi256_si512(one), two, 1);
        return _mm512_xor_si512(both, _mm512_set1_epi8(-128)); /* + 128 */
    }
    if (kind == Q4_0 || kind == Q4_1) {
        __m512i one = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(w + 2 * i * bytes + at)));
        __m128i two = _mm_loadu_si128((const __m128i *)(w + (2 * i + 1) * bytes + at));
        one = _mm512_mask_broadcast_i32x4(one, 0xff00, two);
        return _mm512_and_si512(_mm512_srlv_epi16(one, halves), _mm512_set1_epi8(15));
    }
    if (kind == Q4_K || kind == Q5_K) return codes_q45_k(w + i / 4 * bytes, bytes, i % 4);
    if (kind == Q6_K) return codes_q6_k(w, i);
    if (kind == GROUP8) return _mm512_loadu_si512(w + 64 * i);
    __m512i words = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(w + 32 * i)));
    return _mm512_and_si512(_mm512_or_si512(words, _mm512_slli_epi16(words, 4)), _mm512_set1_epi8(15));
}

#endif
#endif
