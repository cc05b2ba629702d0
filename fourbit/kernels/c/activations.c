/* Activations in 8 bits: blocks of 32 share a scale, the largest absolute value divided by 127.
 *
 * x = scale * code + r with |r| <= scale / 2 = max|x| / 254. A block with an infinity or a NaN gets the scale NaN, so that
 * every result that depends on it is NaN; one whose largest value is below 2^-120 becomes zero.
 */
#include "common.h"
#include "half.h"

enum { PADDED_BLOCKS = 16 };

/* Room for all arrays of an Activations in one piece; NULL when there is none. */
static void *activations_new(Activations *a, const float *x, int64_t tokens, int64_t columns) {
    int64_t blocks = rounded_up(rounded_up(columns, BLOCK) / BLOCK, PADDED_BLOCKS), all = tokens * blocks;
    uint8_t *memory = aligned_bytes(all * (BLOCK + 4 + 4 + 8));
    *a = (Activations){tokens, blocks, x, columns, NULL, NULL, NULL, NULL};
    a->codes = (int8_t *)memory;
    a->scale = (float *)(memory + all * BLOCK);
    a->sum = a->scale + all;
    a->code_sum = (int32_t *)(a->sum + all);
    return memory;
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
        a->scale[at] = round_block(block, a->codes + at * BLOCK, a->code_sum + 2 * at);
        a->sum[at] = a->scale[at] * (float)(a->code_sum[2 * at] + a->code_sum[2 * at + 1]);
    }
}
