/* Products of rows with many tokens on AVX-512 with VNNI: a tile of 32 rows, unpacked once, times panels of 6 tokens.
 *
 * In a tile rows lie side by side: a register holds four codes of each of 16 rows. The inner loop multiplies it with four
 * codes of one token, repeated 16 times, so that a lane is a row and nothing is added across lanes. 2 x 6 sums of whole
 * numbers and 2 x 6 of floats stay in registers: for each block of 32 columns 96 multiplications (VPDPBUSD), and 36 other
 * instructions to scale.
 */
#if defined(__x86_64__) || defined(_M_X64)
#include "tiles_avx512.h"

#include "units_avx512.h"

enum { PANEL = AVX512_PANEL };

/* Turn 16 rows of 16 numbers of 32 bits into 16 columns, `apart` bytes apart. */
static TARGET __attribute__((noinline)) void transpose(const __m512i rows[16], void *to, int64_t apart) {
    __m512i r[16], t[16];
    for (int i = 0; i < 16; i++) r[i] = rows[i];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; j++) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int j = 0; j < 4; j++) {
            t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
            t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
        }
    for (int j = 0; j < 8; j++) {
        int column = j / 4 * 4 + j % 4; /* t[j]: columns j and j + 8 of four rows each */
        r[column] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
        r[column + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
    }
    for (int i = 0; i < 16; i++) _mm512_store_si512((uint8_t *)to + i * apart, r[i]);
}

/* One unit (512 columns; Q6_K 256) of 16 rows into the tile, at its rows 0-15 or 16-31. */
INLINE TARGET void unpack_unit(int kind, const Matrix *m, const int64_t rows[16], int64_t unit, Tile tile, int64_t at) {
    const int64_t bytes = unit_bytes(kind), rest = smaller(bytes, m->row_bytes - unit * bytes);
    const int pairs = kind == Q6_K ? 4 : 8;
    uint8_t edges[16][576];
    const uint8_t *w[16];
    __m512i r[16];
    for (int i = 0; i < 16; i++) {
        w[i] = row_at(m, rows[i]) + unit * bytes;
        if (rest == bytes) continue;
        memset(edges[i], 0, sizeof edges[i]);
        memcpy(edges[i], w[i], (size_t)rest);
        w[i] = edges[i];
    }
    for (int p = 0; p < pairs; p++) {
        for (int i = 0; i < 16; i++) r[i] = codes_of(kind, w[i], p);
        transpose(r, tile.codes + (unit * pairs + p) * 16 * 128 + 4 * at, 128);
    }
    __m512 least[16];
    for (int i = 0; i < 16; i++) {
        least[i] = _mm512_setzero_ps();
        r[i] = _mm512_castps_si512(scales_of(kind, m, rows[i], unit, w[i], least + i));
    }
    transpose(r, tile.scale + unit * 16 * TILE_ROWS + at, 128);
    transpose((const __m512i *)least, tile.least + unit * 16 * TILE_ROWS + at, 128);
}

/* What the inner loops of the formats have in common, so that there are three of them. */
enum Shape { WHOLE, WITH_LEAST, HALVED };

INLINE enum Shape shape_of(int64_t kind) { return kind == Q6_K ? HALVED : FORMATS[kind].has_least ? WITH_LEAST : WHOLE; }

/* The products of a tile with one panel: `steps` scales, 8 (Q6_K: 4) columns of 4 codes each. */
INLINE TARGET void tile_panel(enum Shape shape, Tile tile, int64_t steps, const Panels *p, const int32_t *start, int64_t panel,
                              int64_t tokens, const __mmask16 mask[2], float *out, int64_t stride) {
    const int columns = shape == HALVED ? 4 : 8, per = 8 / columns;
    const int64_t begin = panel * p->blocks * PANEL;
    const int8_t *x = p->codes + begin * BLOCK;
    const float *scale = p->scale + begin, *sum = p->sum + begin;
    start += begin * per;
    __m512 total[2][PANEL];
    for (int t = 0; t < PANEL; t++) total[0][t] = total[1][t] = _mm512_setzero_ps();
    for (int64_t s = 0; s < steps; s++) {
        __m512i dot[2][PANEL];
        for (int t = 0; t < PANEL; t++)
            dot[0][t] = dot[1][t] =
                shape == WITH_LEAST ? _mm512_setzero_si512() : _mm512_set1_epi32(start[s * PANEL + t]);
        const uint8_t *w = tile.codes + s * columns * 128;
        for (int k = 0; k < columns; k++) {
            __m512i w0 = _mm512_load_si512(w + 128 * k), w1 = _mm512_load_si512(w + 128 * k + 64);
            for (int t = 0; t < PANEL; t++) {
                int32_t four;
                memcpy(&four, x + ((s * columns + k) * PANEL + t) * 4, 4);
                __m512i repeated = _mm512_set1_epi32(four);
                dot[0][t] = _mm512_dpbusd_epi32(dot[0][t], w0, repeated);
                dot[1][t] = _mm512_dpbusd_epi32(dot[1][t], w1, repeated);
            }
        }
        __m512 s0 = _mm512_load_ps(tile.scale + s * TILE_ROWS), s1 = _mm512_load_ps(tile.scale + s * TILE_ROWS + 16);
        for (int t = 0; t < PANEL; t++) {
            __m512 x_scale = _mm512_set1_ps(scale[s / per * PANEL + t]);
            total[0][t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot[0][t]), s0), x_scale, total[0][t]);
            total[1][t] = _mm512_fmadd_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(dot[1][t]), s1), x_scale, total[1][t]);
        }
        if (shape != WITH_LEAST) continue;
        s0 = _mm512_load_ps(tile.least + s * TILE_ROWS), s1 = _mm512_load_ps(tile.least + s * TILE_ROWS + 16);
        for (int t = 0; t < PANEL; t++) {
            __m512 x_sum = _mm512_set1_ps(sum[s * PANEL + t]);
            total[0][t] = _mm512_fmadd_ps(s0, x_sum, total[0][t]);
            total[1][t] = _mm512_fmadd_ps(s1, x_sum, total[1][t]);
        }
    }
    for (int t = 0; t < PANEL && panel * PANEL + t < tokens; t++)
        for (int h = 0; h < 2; h++) _mm512_mask_storeu_ps(out + (panel * PANEL + t) * stride + 16 * h, mask[h], total[h][t]);
}

#define SHAPE(shape) \
    case shape: \
        for (int64_t i = 0; i < p->count; i++) tile_panel(shape, tile, steps, p, start, i, tokens, mask, out + first, m->rows); \
        break;

static TARGET void all_panels(const Matrix *m, int64_t first, int64_t count, Tile tile, int64_t steps, const Panels *p,
                              int64_t tokens, float *out) {
    const __mmask16 mask[2] = {(__mmask16)((1u << smaller(16, count)) - 1),
                               (__mmask16)(count > 16 ? (1u << (count - 16)) - 1 : 0)};
    const int32_t *start = p->start[start_of(m->kind)];
    switch (shape_of(m->kind)) { SHAPE(WHOLE) SHAPE(WITH_LEAST) SHAPE(HALVED) }
}
#undef SHAPE

#define UNPACK(kind) \
    case kind: \
        for (int64_t u = 0; u < units; u++) unpack_unit(kind, m, rows, u, tile, at); \
        break;

TARGET void fourbit_avx512_tile(const Matrix *m, int64_t first, int64_t count, const Panels *p, int64_t tokens, float *out,
                                uint8_t *memory, Plain scratch) {
    (void)scratch;
    Tile tile = tile_at(memory, p->blocks);
    const int64_t bytes = unit_bytes(m->kind), units = (m->row_bytes + bytes - 1) / bytes;
    for (int64_t at = 0; at < TILE_ROWS; at += 16) {
        int64_t rows[16]; /* behind the last row: that row again, and its results are not stored */
        for (int i = 0; i < 16; i++) rows[i] = smaller(first + at + i, m->rows - 1);
        switch (m->kind) {
            UNPACK(Q8_0) UNPACK(Q4_0) UNPACK(Q4_1) UNPACK(Q4_K) UNPACK(Q5_K) UNPACK(Q6_K) UNPACK(GROUP4) UNPACK(GROUP8)
        }
    }
    all_panels(m, first, count, tile, units * UNIT, p, tokens, out);
}
#undef UNPACK
#endif
