/* The ten ways in which a row of weights is stored.
 *
 * All but F32 and F16 say: weight = scale * code + least, with one scale and one least for a block of 32 columns (Q6_K:
 * 16). Codes are small whole numbers; `offset` is what must be added to make them all positive.
 *
 *   Q8_0    34 bytes: d (float16), 32 signed bytes.                      weight = d * code
 *   Q4_0    18 bytes: d, 16 bytes.                                       weight = d * (nibble - 8)
 *   Q4_1    20 bytes: d, m (float16), 16 bytes.                          weight = d * nibble + m
 *           Byte j of both has column j in its low half, column j + 16 in its high half.
 *   Q4_K    144 bytes for 256 columns: d, dmin, 12 bytes, 128 bytes.     weight = d * s * nibble - dmin * m
 *           The 12 bytes hold the 8 pairs of s and m, 6 bits each. Of each 32 bytes of codes the low halves are one
 *           block of 32 columns, the high halves the next.
 *   Q5_K    176 bytes: as Q4_K, and 32 bytes before the codes with bit b of byte j the fifth bit of block b, column j.
 *   Q6_K    210 bytes: 128 bytes of low halves, 64 of the upper two bits, 16 signed s, d.
 *                                                                        weight = d * s * (code - 32), per 16 columns
 *   GROUP4  half a byte a code, column 2j in the low half of byte j; scale (float16) and zero (uint8) per row and group.
 *   GROUP8  a byte a code.                                               weight = scale * (code - zero)
 *
 * Sources: https://github.com/ggml-org/llama.cpp/blob/master/ggml/src/ggml-common.h, ggml-quants.c; the last two are
 * fourbit/llm/artifact.py's.
 */
#ifndef FOURBIT_FORMATS_H
#define FOURBIT_FORMATS_H

#include "common.h"

typedef struct {
    int bytes, columns; /* of a block as it is stored; 0 where a row is not made of blocks */
    int step;           /* columns that share a scale; 0: the values themselves */
    int offset;         /* code + offset >= 0 */
    int has_least;
    int bits;           /* of code + offset */
} Format;

static const Format FORMATS[KINDS] = {
    [F32] = {0, 0, 0, 0, 0, 0},
    [F16] = {0, 0, 0, 0, 0, 0},
    [Q8_0] = {34, 32, 32, 128, 0, 8},
    [Q4_0] = {18, 32, 32, 8, 0, 4},
    [Q4_1] = {20, 32, 32, 0, 1, 4},
    [Q4_K] = {144, 256, 32, 0, 1, 4},
    [Q5_K] = {176, 256, 32, 0, 1, 5},
    [Q6_K] = {210, 256, 16, 32, 0, 6},
    [GROUP4] = {0, 0, 32, 0, 1, 4},
    [GROUP8] = {0, 0, 32, 128, 1, 8},
};

/* A matrix that integers can multiply. Groups that cut through a block of 32 are decoded instead. */
INLINE int has_codes(const Matrix *m) {
    return FORMATS[m->kind].step && (m->group % BLOCK == 0 || m->group >= m->columns);
}

/* Half a page before its end, ask for the first line of the next page. The processor reads ahead by itself, but only within
 * a page; without this it stands still at each of them while the page is looked up (of a mapped file they have 4 KB: a
 * third more bandwidth on Zen 4). One line is enough: asking for more of them takes the place of reading ahead. */
INLINE void next_page(const uint8_t *w, int64_t step) {
    int64_t at = (int64_t)((uintptr_t)w & 4095);
    if (at >= 2048 && at < 2048 + step) __builtin_prefetch((const void *)(((uintptr_t)w | 4095) + 1));
}

INLINE const uint8_t *row_at(const Matrix *m, int64_t row) { return m->data + row * m->row_bytes; }

#endif
