/* Rows of every format in one plain form: a signed byte for each code, a float for each scale and least.
 *
 * This is the definition of the formats in code: short, portable, and slower than it could be. The kernels for one
 * instruction set do the same in registers; the scalar kernels and the tiles of matrices without a faster way use this.
 */
#ifndef FOURBIT_UNPACK_H
#define FOURBIT_UNPACK_H

#include "formats.h"
#include "half.h"

/* One row: codes (32 * blocks), scale and least (blocks, or 2 * blocks of Q6_K); columns behind the last are zero. */
typedef struct {
    int8_t *codes;
    float *scale, *least;
} Plain;

static void nibbles(const uint8_t *bytes, int count, int minus, int8_t *low, int8_t *high) {
    for (int j = 0; j < count; j++) {
        low[j] = (int8_t)((bytes[j] & 15) - minus);
        high[j] = (int8_t)((bytes[j] >> 4) - minus);
    }
}

static void unpack_q8_0(const uint8_t *block, int8_t *codes, float *scale) {
    *scale = load_half(block);
    memcpy(codes, block + 2, BLOCK);
}

static void unpack_q4_0(const uint8_t *block, int8_t *codes, float *scale) {
    *scale = load_half(block);
    nibbles(block + 2, 16, 8, codes, codes + 16);
}

static void unpack_q4_1(const uint8_t *block, int8_t *codes, float *scale, float *least) {
    *scale = load_half(block);
    *least = load_half(block + 2);
    nibbles(block + 4, 16, 0, codes, codes + 16);
}

/* The eight pairs of 6 bits: the first four of s and of m lie whole in bytes 0-3 and 4-7; of the last four the low
 * halves lie in bytes 8-11, the upper two bits above those of the first. */
static void six_bits(const uint8_t *packed, uint8_t *s, uint8_t *m) {
    for (int j = 0; j < 4; j++) {
        s[j] = packed[j] & 63;
        m[j] = packed[j + 4] & 63;
        s[j + 4] = (packed[j + 8] & 15) | (packed[j] >> 6 << 4);
        m[j + 4] = packed[j + 8] >> 4 | (packed[j + 4] >> 6 << 4);
    }
}

/* The same in registers, a byte each: all four of a 32-bit number at once. */
INLINE void six_bits_at_once(const uint8_t *packed, uint64_t *scales, uint64_t *minima) {
    uint32_t a, b, c;
    memcpy(&a, packed, 4);
    memcpy(&b, packed + 4, 4);
    memcpy(&c, packed + 8, 4);
    uint32_t s = (c & 0x0f0f0f0f) | (a >> 2 & 0x30303030), m = (c >> 4 & 0x0f0f0f0f) | (b >> 2 & 0x30303030);
    *scales = (a & 0x3f3f3f3f) | (uint64_t)s << 32;
    *minima = (b & 0x3f3f3f3f) | (uint64_t)m << 32;
}

static void unpack_q45_k(const uint8_t *block, const uint8_t *fifth, const uint8_t *low, int8_t *codes, float *scale,
                         float *least) {
    float d = load_half(block), dmin = load_half(block + 2);
    uint8_t s[8], m[8];
    six_bits(block + 4, s, m);
    for (int b = 0; b < 8; b += 2) nibbles(low + 16 * b, 32, 0, codes + 32 * b, codes + 32 * b + 32);
    for (int b = 0; b < 8; b++) {
        scale[b] = d * s[b];
        least[b] = -dmin * m[b];
        for (int j = 0; fifth && j < 32; j++) codes[32 * b + j] |= (int8_t)((fifth[j] >> b & 1) << 4);
    }
}

static void unpack_q6_k(const uint8_t *block, int8_t *codes, float *scale) {
    const uint8_t *low = block, *high = block + 128;
    float d = load_half(block + 208);
    for (int i = 0; i < 16; i++) scale[i] = d * (int8_t)block[192 + i];
    for (int half = 0; half < 2; half++, low += 64, high += 32, codes += 128) {
        nibbles(low, 64, 0, codes, codes + 64); /* columns 0-63 in the low halves, 64-127 in the high ones */
        for (int j = 0; j < 128; j++) codes[j] = (int8_t)((codes[j] | (high[j % 32] >> (j / 32 * 2) & 3) << 4) - 32);
    }
}

static void unpack_group(const Matrix *m, int64_t row, int64_t blocks, Plain out) {
    const uint8_t *bytes = row_at(m, row);
    int eight = m->kind == GROUP8;
    for (int64_t c = 0; c < blocks * BLOCK; c++) {
        int code = c >= m->columns ? 0 : eight ? bytes[c] - 128 : bytes[c / 2] >> (c % 2 * 4) & 15;
        out.codes[c] = (int8_t)code;
    }
    for (int64_t b = 0; b < blocks; b++) {
        int64_t g = row * m->groups + smaller(b * BLOCK / m->group, m->groups - 1);
        out.scale[b] = load_half(m->scale + 2 * g);
        out.least[b] = out.scale[b] * (float)(eight * 128 - m->zero[g]);
    }
}

static void unpack_row(const Matrix *m, int64_t row, int64_t blocks, Plain out) {
    const Format format = FORMATS[m->kind];
    const uint8_t *block = row_at(m, row);
    if (!format.columns) {
        unpack_group(m, row, blocks, out);
        return;
    }
    int64_t stored = m->columns / format.columns, steps = format.step ? format.columns / format.step : 0;
    for (int64_t i = 0; i < stored; i++, block += format.bytes) {
        int8_t *codes = out.codes + i * format.columns;
        float *scale = out.scale + i * steps, *least = out.least + i * steps;
        switch (m->kind) {
        case Q8_0: unpack_q8_0(block, codes, scale); break;
        case Q4_0: unpack_q4_0(block, codes, scale); break;
        case Q4_1: unpack_q4_1(block, codes, scale, least); break;
        case Q4_K: unpack_q45_k(block, NULL, block + 16, codes, scale, least); break;
        case Q5_K: unpack_q45_k(block, block + 16, block + 48, codes, scale, least); break;
        default: unpack_q6_k(block, codes, scale); break;
        }
    }
    int64_t done = stored * format.columns, ends = stored * steps, all = blocks * BLOCK / format.step;
    memset(out.codes + done, 0, (size_t)(blocks * BLOCK - done));
    for (int64_t i = ends; i < all; i++) out.scale[i] = out.least[i] = 0;
    if (!format.has_least) memset(out.least, 0, (size_t)ends * sizeof(float));
}

/* One row as float32, for embeddings, for F32 and F16, and for groups that no block fits. */
static void decode_row(const Matrix *m, int64_t row, Plain scratch, float *out) {
    const uint8_t *bytes = row_at(m, row);
    if (m->kind == F32) {
        memcpy(out, bytes, (size_t)m->columns * 4);
    } else if (m->kind == F16) {
        for (int64_t c = 0; c < m->columns; c++) out[c] = load_half(bytes + 2 * c);
    } else if (!FORMATS[m->kind].columns) {
        for (int64_t c = 0; c < m->columns; c++) {
            int64_t g = row * m->groups + c / m->group;
            int code = m->kind == GROUP8 ? bytes[c] : bytes[c / 2] >> (c % 2 * 4) & 15;
            out[c] = load_half(m->scale + 2 * g) * (float)(code - m->zero[g]);
        }
    } else {
        int step = FORMATS[m->kind].step;
        unpack_row(m, row, m->columns / BLOCK, scratch);
        for (int64_t c = 0; c < m->columns; c++)
            out[c] = scratch.scale[c / step] * (float)scratch.codes[c] + scratch.least[c / step];
    }
}

#endif
