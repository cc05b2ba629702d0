/* Activations in 8 bits: blocks of 32 share a scale, the largest absolute value divided by 127.
 *
 * x = scale * code + r with |r| <= scale / 2 = max|x| / 254. A block with an infinity or a NaN gets the scale NaN, so that
 * every result that depends on it is NaN; one whose largest value is below 2^-120 becomes zero.
 */
#ifndef FOURBIT_ACTIVATIONS_H
#define FOURBIT_ACTIVATIONS_H

#include "half.h"

enum { PADDED_BLOCKS = 16, MOST_COPIED = 3 };

/* The orders in which codes can lie. Nibbles come in two halves of a byte: what belongs to the low halves of four blocks
 * (64 bytes) is put before what belongs to their high halves. In GGUF's blocks those are columns 0-15 and 16-31, in lab 04's
 * codes the even and the odd columns. */
enum Order { HALVES, EVENS, NATURAL };

INLINE int order_of(int64_t kind) {
    return kind == Q4_0 || kind == Q4_1 ? HALVES : kind == GROUP4 ? EVENS : NATURAL;
}

/* How many rows' blocks are a whole number of units of 16, where rows are short and their own number is none: so many rows
 * can be multiplied as if they were one, with as many copies of a token's blocks. 0 for all other rows. */
static int64_t copies_of(int64_t columns) {
    int64_t blocks = columns / BLOCK, copies = 1;
    if (columns % BLOCK || blocks < PADDED_BLOCKS || blocks > 64 || blocks % PADDED_BLOCKS == 0) return 0;
    while (copies * blocks % PADDED_BLOCKS) copies *= 2;
    return copies * blocks <= 256 ? copies : 0;
}

/* Room for all arrays of an Activations in one piece, with the orders that `wanted` has bits for; NULL when there is none. */
static void *activations_new(Activations *a, const float *x, int64_t tokens, int64_t columns, int wanted) {
    int64_t blocks = rounded_up(rounded_up(columns, BLOCK) / BLOCK, PADDED_BLOCKS), whole = tokens * blocks;
    int64_t copies = tokens <= MOST_COPIED ? copies_of(columns) : 0, all = whole + tokens * copies * columns / BLOCK;
    uint8_t *memory = aligned_bytes(all * (3 * BLOCK + 4 + 4 + 4 + 8));
    *a = (Activations){.tokens = tokens, .blocks = blocks, .exact = x, .columns = columns, .codes = (int8_t *)memory};
    for (int order = 0; order < NATURAL; order++)
        if (wanted >> order & 1) a->arranged[order] = a->codes + (order + 1) * all * BLOCK;
    a->scale = (float *)(memory + 3 * all * BLOCK);
    a->sum = a->scale + all;
    a->code_sum = (int32_t *)(a->sum + all);
    a->half_sum = a->code_sum + all;
    a->copies = copies;
    a->again = whole;
    return memory;
}

/* Where the copies of a token begin. */
INLINE int64_t copies_at(const Activations *a, int64_t token) { return a->again + token * a->copies * (a->columns / BLOCK); }

/* Fill the copies, in every order that is used with them. */
static void copy_token(const Activations *a, int64_t token) {
    int64_t blocks = a->columns / BLOCK, all = a->copies * blocks, first = copies_at(a, token), at = token * a->blocks;
    for (int64_t to = first; to < first + all; to += blocks) {
        memcpy(a->codes + to * BLOCK, a->codes + at * BLOCK, (size_t)(blocks * BLOCK));
        memcpy(a->scale + to, a->scale + at, (size_t)blocks * 4);
        memcpy(a->sum + to, a->sum + at, (size_t)blocks * 4);
        memcpy(a->code_sum + to, a->code_sum + at, (size_t)blocks * 4);
    }
    if (!a->arranged[HALVES]) return;
    const int8_t *from = a->codes + first * BLOCK;
    int8_t *to = a->arranged[HALVES] + first * BLOCK;
    for (int64_t b = 0; b < all; b++) {
        memcpy(to + b / 4 * 128 + b % 4 * 16, from + b * BLOCK, 16);
        memcpy(to + b / 4 * 128 + b % 4 * 16 + 64, from + b * BLOCK + 16, 16);
    }
}

/* Where byte i of four blocks goes. */
static void arrange_token(const Activations *a, int64_t token) {
    const int8_t *from = a->codes + token * a->blocks * BLOCK;
    for (int order = 0; order < NATURAL; order++) {
        if (!a->arranged[order]) continue;
        int8_t *to = a->arranged[order] + token * a->blocks * BLOCK;
        for (int64_t b = 0; b < a->blocks; b++)
            for (int j = 0; j < 16; j++) {
                int8_t *low = to + b / 4 * 128 + b % 4 * 16 + j;
                low[0] = from[b * BLOCK + (order == HALVES ? j : 2 * j)];
                low[64] = from[b * BLOCK + (order == HALVES ? j + 16 : 2 * j + 1)];
            }
    }
}

/* The bits of |x| order as |x| does, with infinity and NaN above all else: one maximum finds the scale and the trouble.
 * Adding 1.5 * 2^23 leaves the nearest whole number in the last bits of a float. */
INLINE float round_block(const float *x, int8_t *codes, int32_t *sums) {
    int32_t largest = 0;
    for (int i = 0; i < BLOCK; i++) {
        int32_t bits = (int32_t)(float_to_bits(x[i]) & 0x7fffffff);
        largest = bits > largest ? bits : largest;
    }
    float most = bits_to_float((uint32_t)largest);
    int usable = largest < 0x7f800000 && most >= 0x1p-120f;
    float inverse = usable ? 127.0f / most : 0.0f;
    for (int half = 0; half < 2; half++) {
        int32_t sum = 0;
        for (int i = 16 * half; i < 16 * half + 16; i++) {
            float scaled = usable ? x[i] * inverse : 0.0f;
            int32_t code = (int32_t)float_to_bits(scaled + 12582912.0f) - 0x4b400000;
            codes[i] = (int8_t)code;
            sum += code;
        }
        sums[half] = sum;
    }
    return usable ? most / 127.0f : largest < 0x7f800000 ? 0.0f : bits_to_float(0x7fc00000);
}

INLINE void round_token(const Activations *a, int64_t token) {
    const float *x = a->exact + token * a->columns;
    for (int64_t b = 0; b < a->blocks; b++) {
        int64_t at = token * a->blocks + b, left = a->columns - b * BLOCK;
        float edge[BLOCK] = {0};
        const float *block = x + b * BLOCK;
        if (left < BLOCK) {
            if (left > 0) memcpy(edge, block, (size_t)left * sizeof(float));
            block = edge;
        }
        int32_t *sums = a->half_sum + 2 * at;
        a->scale[at] = round_block(block, a->codes + at * BLOCK, sums);
        a->code_sum[at] = sums[0] + sums[1];
        a->sum[at] = a->scale[at] * (float)a->code_sum[at];
    }
}

#endif
