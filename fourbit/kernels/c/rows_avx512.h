/* Products of rows with one token, or a few, on AVX-512 with VNNI (Intel since 2019, AMD since Zen 4).
 *
 * The work unit is 16 blocks of 32 columns (Q6_K: 16 half blocks). VPDPBUSD multiplies 64 unsigned codes with 64 signed
 * activations and adds groups of four into 16 sums of 32 bits; a tree of additions then puts the dot product of block b
 * into lane b, so that scales cost one multiplication for 16 blocks.
 *
 * Rows go one after the other, so that memory is read as one stream: with two rows side by side, 2 KB apart, Zen 4's
 * prefetchers found half the bandwidth.
 */
#ifndef FOURBIT_ROWS_AVX512_H
#define FOURBIT_ROWS_AVX512_H

#include "units_avx512.h"

/* What 16 blocks of activations have in common for all rows. */
typedef struct {
    const int8_t *codes;
    const float *scale, *sum;
    const int32_t *code_sum, *half_sum;
} Unit;

/* Sums of 4 neighboring lanes: lane 4 L + i of the result is the sum of lanes 4 L ... 4 L + 3 of z[i]. */
INLINE TARGET __m512i sums_of_4(const __m512i z[4]) {
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(z[0], z[1]), _mm512_unpackhi_epi32(z[0], z[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(z[2], z[3]), _mm512_unpackhi_epi32(z[2], z[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* z[i] has blocks 4 i ... 4 i + 3, four lanes each: lane b of the result is block b. */
INLINE TARGET __m512i quarters_to_blocks(const __m512i z[4]) {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, sums_of_4(z));
}

/* z[i] has blocks 2 i and 2 i + 1, eight lanes each. */
INLINE TARGET __m512i halves_to_blocks(const __m512i z[8]) {
    __m512i a = sums_of_4(z), b = sums_of_4(z + 4);
    __m512i sums = _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd));
    const __m512i order = _mm512_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7, 8, 12, 9, 13, 10, 14, 11, 15);
    return _mm512_permutexvar_epi32(order, sums);
}

/* Dot products of 16 blocks of nibbles; `bytes[i]` are those of blocks 4 i ... 4 i + 3, low halves first in `codes`. */
INLINE TARGET __m512i dot_nibbles(const __m512i bytes[4], const int8_t *codes) {
    const __m512i low = _mm512_set1_epi8(15);
    __m512i z[4];
    for (int i = 0; i < 4; i++) {
        const __m512i *x = (const __m512i *)(codes + 128 * i);
        z[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_and_si512(bytes[i], low), _mm512_load_si512(x));
        __m512i high = _mm512_and_si512(_mm512_srli_epi16(bytes[i], 4), low);
        z[i] = _mm512_dpbusd_epi32(z[i], high, _mm512_load_si512(x + 1));
    }
    return quarters_to_blocks(z);
}

/* The 16-bit words of four blocks of nibbles that lie 18 (20) bytes apart; the last is read for itself. */
INLINE TARGET __m512i four_blocks(const uint8_t *w, int64_t bytes) {
    const __m512i of_18 = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 26, 25, 24, 23, 22, 21, 20, 19, 17, 16, 15, 14, 13, 12, 11,
                                           10, 8, 7, 6, 5, 4, 3, 2, 1);
    const __m512i of_20 = _mm512_set_epi16(0, 0, 0, 0, 0, 0, 0, 0, 29, 28, 27, 26, 25, 24, 23, 22, 19, 18, 17, 16, 15, 14, 13,
                                           12, 9, 8, 7, 6, 5, 4, 3, 2);
    __m512i three = _mm512_permutexvar_epi16(bytes == 18 ? of_18 : of_20, _mm512_loadu_si512(w));
    return _mm512_inserti32x4(three, _mm_loadu_si128((const __m128i *)(w + 4 * bytes - 16)), 3);
}

/* The dot products of 16 blocks of whole numbers. */
INLINE TARGET __m512i dots_of(int kind, const uint8_t *w, const int8_t *codes) {
    __m512i z[8];
    if (order_of(kind) != NATURAL) {
        const int64_t bytes = FORMATS[kind].bytes;
        for (int i = 0; i < 4; i++)
            z[i] = kind == GROUP4 ? _mm512_loadu_si512(w + 64 * i) : four_blocks(w + 4 * i * bytes, bytes);
        return dot_nibbles(z, codes);
    }
    for (int i = 0; i < (kind == Q6_K ? 4 : 8); i++) {
        __m512i x = _mm512_load_si512(codes + 64 * i);
        z[i] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), codes_of(kind, w, i), x);
    }
    return kind == Q6_K ? quarters_to_blocks(z) : halves_to_blocks(z);
}

/* total + the unit's products: scale_w * scale_x * (dot - offset * sum of the codes of x) + least * (scaled) sum. */
INLINE TARGET __m512 one_unit(int kind, __m512 total, const Matrix *m, int64_t row, int64_t unit, const uint8_t *w, Unit x) {
    __m512 least, scale = scales_of(kind, m, row, unit, w, &least), x_scale = _mm512_loadu_ps(x.scale);
    __m512i dot = dots_of(kind, w, x.codes);
    if (kind == Q4_0) dot = _mm512_sub_epi32(dot, _mm512_slli_epi32(_mm512_loadu_si512(x.code_sum), 3));
    if (kind == Q8_0) dot = _mm512_sub_epi32(dot, _mm512_slli_epi32(_mm512_loadu_si512(x.code_sum), 7));
    if (kind == Q6_K) {
        const __m512i twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        dot = _mm512_sub_epi32(dot, _mm512_slli_epi32(_mm512_loadu_si512(x.half_sum), 5));
        x_scale = _mm512_permutexvar_ps(twice, _mm512_castps256_ps512(_mm256_loadu_ps(x.scale)));
    }
    if (FORMATS[kind].has_least) total = _mm512_fmadd_ps(least, _mm512_loadu_ps(x.sum), total);
    return _mm512_fmadd_ps(_mm512_mul_ps(scale, x_scale), _mm512_cvtepi32_ps(dot), total);
}

INLINE TARGET Unit unit_at(int kind, const Activations *a, int64_t token, int64_t unit) {
    int order = order_of(kind);
    int64_t b = token * a->blocks + unit * (kind == Q6_K ? UNIT / 2 : UNIT);
    const int8_t *codes = order == NATURAL ? a->codes : a->arranged[order];
    return (Unit){codes + b * BLOCK, a->scale + b, a->sum + b, a->code_sum + b, a->half_sum + 2 * b};
}

/* One row and all tokens. The last columns, fewer than a unit, are copied into a unit of zeros: nothing is read behind
 * the end of a row. They are copied last: read before the others, they would be waited for, far ahead of the stream. */
INLINE TARGET void one_row(int kind, const Matrix *m, int64_t row, const Activations *a, float *out) {
    const int64_t bytes = unit_bytes(kind), units = m->row_bytes / bytes, rest = m->row_bytes % bytes;
    const uint8_t *w = row_at(m, row);
    uint8_t edge[576] __attribute__((aligned(64)));
    for (int64_t t = 0; t < a->tokens; t++) {
        __m512 total = _mm512_setzero_ps();
        for (int64_t u = 0; u < units; u++) {
            next_page(w + u * bytes, bytes);
            total = one_unit(kind, total, m, row, u, w + u * bytes, unit_at(kind, a, t, u));
        }
        if (rest) {
            for (int64_t i = 0; t == 0 && i < bytes; i += 64) {
                int64_t left = rest - i;
                __mmask64 there = left >= 64 ? ~0ull : left > 0 ? (1ull << left) - 1 : 0;
                _mm512_store_si512(edge + i, _mm512_maskz_loadu_epi8(there, w + units * bytes + i));
            }
            total = one_unit(kind, total, m, row, units, edge, unit_at(kind, a, t, units));
        }
        out[t * m->rows + row] = _mm512_reduce_add_ps(total);
    }
}

/* `copies` short rows and one token: rows lie behind one another, so they are one stream of blocks without a remainder.
 * Lanes go to the row that their block belongs to. */
INLINE TARGET void short_rows(int kind, const Matrix *m, int64_t row, const Activations *a, int64_t token, float *out) {
    const int64_t bytes = unit_bytes(kind), blocks = a->columns / BLOCK, units = a->copies * blocks / UNIT;
    const uint8_t *w = row_at(m, row);
    const int8_t *codes = order_of(kind) == NATURAL ? a->codes : a->arranged[order_of(kind)];
    __m512 total = _mm512_setzero_ps();
    int64_t left = blocks;
    out += token * m->rows + row;
    for (int64_t u = 0; u < units; u++) {
        int64_t b = copies_at(a, token) + u * UNIT;
        Unit x = {codes + b * BLOCK, a->scale + b, a->sum + b, a->code_sum + b, NULL};
        next_page(w + u * bytes, bytes);
        __m512 part = one_unit(kind, _mm512_setzero_ps(), m, row, u, w + u * bytes, x);
        if (left > UNIT) {
            total = _mm512_add_ps(total, part);
            left -= UNIT;
        } else {
            __mmask16 ours = (__mmask16)((1u << left) - 1);
            *out++ = _mm512_reduce_add_ps(_mm512_mask_add_ps(total, ours, total, part));
            total = _mm512_maskz_mov_ps((__mmask16)~ours, part);
            left += blocks - UNIT;
        }
    }
}

#define SHORT(kind) \
    case kind: \
        for (; count >= a->copies; first += a->copies, count -= a->copies) \
            for (int64_t t = 0; t < a->tokens; t++) short_rows(kind, m, first, a, t, out); \
        break;

#define ROWS(kind) \
    case kind: \
        for (int64_t r = first; r < first + count; r++) one_row(kind, m, r, a, out); \
        break;

static TARGET void avx512_rows(const Matrix *m, int64_t first, int64_t count, const Activations *a, float *out, Plain scratch) {
    (void)scratch;
    if (a->copies)
        switch (m->kind) { SHORT(Q8_0) SHORT(Q4_0) SHORT(Q4_1) }
    switch (m->kind) { ROWS(Q8_0) ROWS(Q4_0) ROWS(Q4_1) ROWS(Q4_K) ROWS(Q5_K) ROWS(Q6_K) ROWS(GROUP4) ROWS(GROUP8) }
}
#undef ROWS

static TARGET void avx512_round(const Activations *a, int64_t token) {
    round_token(a, token);
    arrange_token(a, token);
    if (a->copies) copy_token(a, token);
}
#endif
