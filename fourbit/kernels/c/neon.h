/* NEON (every 64-bit ARM). Signed bytes are multiplied; SDOT (ARMv8.2, Apple since M1, Cortex-A75) adds groups of four
 * products at once, without it products of 16 bits are added in pairs. Included for each of the two.
 */
#define Codes int8x16x2_t
#define Sums int32x4x2_t
#define Floats float32x4_t
#define SIGNED 1

INLINE TARGET Codes ON(two)(uint8x16_t a, uint8x16_t b) {
    return (Codes){{vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b)}};
}
INLINE TARGET Codes ON(whole_bytes)(const uint8_t *at) { return ON(two)(vld1q_u8(at), vld1q_u8(at + 16)); }
INLINE TARGET Codes ON(plus)(Codes c, int n) {
    return (Codes){{vaddq_s8(c.val[0], vdupq_n_s8((int8_t)n)), vaddq_s8(c.val[1], vdupq_n_s8((int8_t)n))}};
}

INLINE TARGET Codes ON(nibbles_of_16)(const uint8_t *at) {
    uint8x16_t bytes = vld1q_u8(at);
    return ON(two)(vandq_u8(bytes, vdupq_n_u8(15)), vshrq_n_u8(bytes, 4));
}

INLINE TARGET Codes ON(nibbles_of_32)(const uint8_t *at, int high) {
    uint8x16_t a = vld1q_u8(at), b = vld1q_u8(at + 16), low = vdupq_n_u8(15);
    return high ? ON(two)(vshrq_n_u8(a, 4), vshrq_n_u8(b, 4)) : ON(two)(vandq_u8(a, low), vandq_u8(b, low));
}

INLINE TARGET Codes ON(pairs_of_16)(const uint8_t *at) {
    uint8x16_t bytes = vld1q_u8(at), even = vandq_u8(bytes, vdupq_n_u8(15)), odd = vshrq_n_u8(bytes, 4);
    return ON(two)(vzip1q_u8(even, odd), vzip2q_u8(even, odd));
}

INLINE TARGET uint8x16_t ON(bits)(const uint8_t *at, int from, int mask) {
    uint8x16_t bits = vandq_u8(vshlq_u8(vld1q_u8(at), vdupq_n_s8((int8_t)-from)), vdupq_n_u8((uint8_t)mask));
    return vshlq_n_u8(bits, 4);
}

INLINE TARGET Codes ON(more_bits)(Codes c, const uint8_t *at, int from, int mask) {
    return ON(two)(vorrq_u8(vreinterpretq_u8_s8(c.val[0]), ON(bits)(at, from, mask)),
                   vorrq_u8(vreinterpretq_u8_s8(c.val[1]), ON(bits)(at + 16, from, mask)));
}

INLINE TARGET Sums ON(dot)(Codes c, const int8_t *at, int bits) {
    (void)bits;
    int32x4_t none = vdupq_n_s32(0);
    return (Sums){{ON(dot_16)(none, c.val[0], vld1q_s8(at)), ON(dot_16)(none, c.val[1], vld1q_s8(at + 16))}};
}

INLINE TARGET Floats ON(no_floats)(void) { return vdupq_n_f32(0); }
INLINE TARGET Floats ON(add_scaled_sums)(Floats total, Sums s, float scale) {
    return vfmaq_n_f32(total, vcvtq_f32_s32(vaddq_s32(s.val[0], s.val[1])), scale);
}
INLINE TARGET Floats ON(add_halves)(Floats total, Sums s, const float two[2], float scale) {
    Floats low = vmulq_n_f32(vcvtq_f32_s32(s.val[0]), two[0]);
    return vfmaq_n_f32(total, vfmaq_n_f32(low, vcvtq_f32_s32(s.val[1]), two[1]), scale);
}
INLINE TARGET Floats ON(add_eight)(Floats total, const float *a, const float *b) {
    return vfmaq_f32(vfmaq_f32(total, vld1q_f32(a), vld1q_f32(b)), vld1q_f32(a + 4), vld1q_f32(b + 4));
}
INLINE TARGET float ON(sum_of)(Floats x) { return vaddvq_f32(x); }
INLINE TARGET float ON(half)(const uint8_t *at) {
    uint16_t bits;
    memcpy(&bits, at, 2);
    return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(bits))), 0);
}
INLINE TARGET void ON(eight_halves)(const uint8_t *w, int64_t apart, float *to) {
    for (int b = 0; b < 8; b++) to[b] = ON(half)(w + b * apart);
}

INLINE TARGET void ON(eight_bytes)(const uint8_t *at, int negative, float times, float *to) {
    for (int b = 0; b < 8; b++) to[b] = times * (float)(negative ? (int8_t)at[b] : at[b]);
}

#include "rows_narrow.h"

#define WIDTH 4
#define NARROW_PANEL 4
#define Dots int32x4_t

INLINE TARGET Dots ON(repeat)(int32_t x) { return vdupq_n_s32(x); }
INLINE TARGET void ON(save_floats)(float *to, Floats x) { vst1q_f32(to, x); }
INLINE TARGET Floats ON(add_scaled_dots)(Floats total, Dots dot, const float *scale, float x) {
    return vfmaq_n_f32(total, vmulq_f32(vcvtq_f32_s32(dot), vld1q_f32(scale)), x);
}
INLINE TARGET Floats ON(add_repeated)(Floats total, const float *a, float x) { return vfmaq_n_f32(total, vld1q_f32(a), x); }

INLINE TARGET void ON(dots)(int bits, int columns, const uint8_t *w, const int8_t *x, Dots dot[2][NARROW_PANEL]) {
    (void)bits;
    for (int k = 0; k < columns; k++)
        for (int t = 0; t < NARROW_PANEL; t++) {
            int32_t four;
            memcpy(&four, x + (k * NARROW_PANEL + t) * 4, 4);
            int8x16_t repeated = vreinterpretq_s8_s32(vdupq_n_s32(four));
            for (int h = 0; h < 2; h++)
                dot[h][t] = ON(dot_16)(dot[h][t], vreinterpretq_s8_u8(vld1q_u8(w + 32 * k + 16 * h)), repeated);
        }
}

#include "tiles_narrow.h"

#undef Codes
#undef Sums
#undef Floats
#undef SIGNED
#undef WIDTH
#undef NARROW_PANEL
#undef Dots
