/* AVX2 (Intel since 2013, AMD since 2015). VPMADDUBSW multiplies 32 unsigned with 32 signed bytes and adds pairs in 16 bits:
 * exact for codes of up to 7 bits, as 2 * 127 * 127 < 2^15. Codes of 8 bits are signed; |code| times the activation with
 * the code's sign is the same product.
 */
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>

#include "isa.h"

#define TARGET __attribute__((target("avx2,fma,f16c")))
#define ON(name) avx2_##name
#define Codes __m256i
#define Sums __m256i
#define Floats __m256
#define SIGNED 0

INLINE TARGET __m256i avx2_loose(const void *at) { return _mm256_loadu_si256((const __m256i *)at); }
INLINE TARGET Codes avx2_whole_bytes(const uint8_t *at) { return avx2_loose(at); }
INLINE TARGET Codes avx2_plus(Codes codes, int n) { return n ? _mm256_add_epi8(codes, _mm256_set1_epi8((char)n)) : codes; }

INLINE TARGET Codes avx2_nibbles_of_16(const uint8_t *at) {
    __m128i low = _mm_loadu_si128((const __m128i *)at);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_srli_epi16(low, 4), 1);
    return _mm256_and_si256(both, _mm256_set1_epi8(15));
}

INLINE TARGET Codes avx2_nibbles_of_32(const uint8_t *at, int high) {
    __m256i bytes = avx2_loose(at);
    return _mm256_and_si256(high ? _mm256_srli_epi16(bytes, 4) : bytes, _mm256_set1_epi8(15));
}

INLINE TARGET Codes avx2_pairs_of_16(const uint8_t *at) {
    __m256i words = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)at));
    return _mm256_and_si256(_mm256_or_si256(words, _mm256_slli_epi16(words, 4)), _mm256_set1_epi8(15));
}

/* Bits `from` and up of 32 bytes, those of `mask`, above the four that are there. */
INLINE TARGET Codes avx2_more_bits(Codes codes, const uint8_t *at, int from, int mask) {
    __m256i bits = _mm256_and_si256(_mm256_srl_epi16(avx2_loose(at), _mm_cvtsi32_si128(from)), _mm256_set1_epi8((char)mask));
    return _mm256_or_si256(codes, _mm256_slli_epi16(bits, 4));
}

INLINE TARGET Sums avx2_dot(Codes codes, const int8_t *at, int bits) {
    __m256i x = avx2_loose(at);
    __m256i pairs = bits < 8 ? _mm256_maddubs_epi16(codes, x)
                             : _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(x, codes));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}

INLINE TARGET Floats avx2_no_floats(void) { return _mm256_setzero_ps(); }
INLINE TARGET Floats avx2_add_scaled_sums(Floats total, Sums sums, float scale) {
    return _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(scale), total);
}
INLINE TARGET Floats avx2_add_halves(Floats total, Sums sums, const float two[2], float scale) {
    __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(scale));
    return _mm256_fmadd_ps(product, _mm256_set_m128(_mm_set1_ps(two[1]), _mm_set1_ps(two[0])), total);
}
INLINE TARGET Floats avx2_add_eight(Floats total, const float *a, const float *b) {
    return _mm256_fmadd_ps(_mm256_loadu_ps(a), _mm256_loadu_ps(b), total);
}
INLINE TARGET float avx2_sum_of(Floats x) {
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
INLINE TARGET short avx2_16_bits(const uint8_t *at) {
    short bits;
    memcpy(&bits, at, 2);
    return bits;
}
INLINE TARGET float avx2_half(const uint8_t *at) { return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(avx2_16_bits(at)))); }
INLINE TARGET void avx2_eight_halves(const uint8_t *w, int64_t apart, float *to) {
    __m128i d = _mm_setr_epi16(avx2_16_bits(w), avx2_16_bits(w + apart), avx2_16_bits(w + 2 * apart), avx2_16_bits(w + 3 * apart),
                               avx2_16_bits(w + 4 * apart), avx2_16_bits(w + 5 * apart), avx2_16_bits(w + 6 * apart),
                               avx2_16_bits(w + 7 * apart));
    _mm256_storeu_ps(to, _mm256_cvtph_ps(apart == 2 ? _mm_loadu_si128((const __m128i *)w) : d));
}
INLINE TARGET void avx2_eight_bytes(const uint8_t *at, int negative, float times, float *to) {
    __m128i bytes = _mm_loadl_epi64((const __m128i *)at);
    __m256 floats = _mm256_cvtepi32_ps(negative ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes));
    _mm256_storeu_ps(to, _mm256_mul_ps(floats, _mm256_set1_ps(times)));
}

#include "rows_narrow.h"

#define WIDTH 8
#define NARROW_PANEL 3
#define Dots __m256i

INLINE TARGET Dots avx2_repeat(int32_t x) { return _mm256_set1_epi32(x); }
INLINE TARGET void avx2_save_floats(float *to, Floats x) { _mm256_storeu_ps(to, x); }
INLINE TARGET Floats avx2_add_scaled_dots(Floats total, Dots dot, const float *scale, float x) {
    __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(dot), _mm256_loadu_ps(scale));
    return _mm256_fmadd_ps(product, _mm256_set1_ps(x), total);
}
INLINE TARGET Floats avx2_add_repeated(Floats total, const float *a, float x) {
    return _mm256_fmadd_ps(_mm256_loadu_ps(a), _mm256_set1_ps(x), total);
}

/* Pairs of products add up in 16 bits for as long as they cannot overflow: 8 times 2 * 15 * 127 for 4 bits, 4 times for 5,
 * twice for 6. */
INLINE TARGET void avx2_dots(int bits, int columns, const uint8_t *w, const int8_t *x, Dots dot[2][NARROW_PANEL]) {
    const int at_once = bits == 4 ? 8 : bits == 5 ? 4 : bits == 6 ? 2 : 1;
    for (int k = 0; k < columns; k += at_once) {
        __m256i pairs[2][NARROW_PANEL] = {{_mm256_setzero_si256()}};
        for (int j = k; j < k + at_once; j++)
            for (int t = 0; t < NARROW_PANEL; t++) {
                int32_t four;
                memcpy(&four, x + (j * NARROW_PANEL + t) * 4, 4);
                __m256i repeated = _mm256_set1_epi32(four);
                for (int h = 0; h < 2; h++) {
                    __m256i codes = avx2_loose(w + 64 * j + 32 * h);
                    __m256i both = bits < 8 ? _mm256_maddubs_epi16(codes, repeated)
                                            : _mm256_maddubs_epi16(_mm256_abs_epi8(codes), _mm256_sign_epi8(repeated, codes));
                    pairs[h][t] = j > k ? _mm256_add_epi16(pairs[h][t], both) : both;
                }
            }
        for (int t = 0; t < NARROW_PANEL; t++)
            for (int h = 0; h < 2; h++)
                dot[h][t] = _mm256_add_epi32(dot[h][t], _mm256_madd_epi16(pairs[h][t], _mm256_set1_epi16(1)));
    }
}

#include "tiles_narrow.h"
#define LANES 8
#include "vectors.h"

INLINE TARGET Lanes avx2_load_halves(const uint8_t *at) {
    return (Lanes)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)at));
}

INLINE TARGET void avx2_save_halves(uint8_t *at, Lanes x) {
    _mm_storeu_si128((__m128i *)at, _mm256_cvtps_ph((__m256)x, _MM_FROUND_TO_NEAREST_INT));
}

#include "floats.h"
#include "store.h"
#include "attention.h"

#undef ON
#undef LANES
#undef Codes
#undef Sums
#undef Floats
#undef SIGNED
#undef WIDTH
#undef NARROW_PANEL
#undef Dots

static int has_avx2(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

const Isa fourbit_avx2 = {"avx2", has_avx2, avx2_round, avx2_rows, avx2_tile, 3, FLOATS(avx2, 8)};
#endif
