/* Products of rows with one token, or a few, on registers of 16 or 32 bytes. Included once per instruction set, which has
 * defined: Codes (32 codes of a block) and how to load and multiply them, Sums (of whole numbers), Floats.
 *
 * A span is 8 blocks of 32 columns. Its scales are prepared together; then each block is unpacked, multiplied with the
 * activations, and its few partial sums are scaled and added as floats.
 *
 * SIGNED says whether Q4_0's codes become negative before the product (NEON), or whether 8 times the sum of the activations
 * is subtracted after it (AVX2, which multiplies unsigned with signed numbers).
 */
#ifndef FOURBIT_NARROW
#define FOURBIT_NARROW
enum { SPAN = 8 };

/* What turns a span's dot products into results: 8 scales and leasts, or 16 of Q6_K. */
typedef struct {
    float scale[2 * SPAN] __attribute__((aligned(32))), least[2 * SPAN] __attribute__((aligned(32)));
} Span;

/* Bytes of 8 blocks. */
INLINE int64_t span_bytes(int64_t kind) {
    return kind == GROUP4 ? 128 : kind == GROUP8 ? 256 : SUPER / FORMATS[kind].columns * FORMATS[kind].bytes;
}
#endif

/* A span's scales go from registers to memory at once: a wide read waits for narrow writes. */
INLINE TARGET void ON(span_of_blocks)(int kind, const uint8_t *w, int64_t count, Span *span) {
    const int64_t bytes = FORMATS[kind].bytes;
    uint8_t edge[SPAN * 34];
    if (count < SPAN) {
        memset(edge, 0, sizeof edge);
        for (int64_t b = 0; b < count; b++) memcpy(edge + b * bytes, w + b * bytes, 4);
        w = edge;
    }
    ON(eight_halves)(w, bytes, span->scale);
    if (kind == Q4_1) ON(eight_halves)(w + 2, bytes, span->least);
    for (int b = 0; !SIGNED && kind == Q4_0 && b < SPAN; b++) span->least[b] = -8 * span->scale[b];
}

INLINE TARGET void ON(span_of_super)(int kind, const uint8_t *w, Span *span) {
    if (kind == Q6_K) {
        ON(eight_bytes)(w + 192, 1, ON(half)(w + 208), span->scale);
        ON(eight_bytes)(w + 200, 1, ON(half)(w + 208), span->scale + SPAN);
        return;
    }
    uint64_t scales, minima;
    six_bits_at_once(w + 4, &scales, &minima);
    ON(eight_bytes)((const uint8_t *)&scales, 0, ON(half)(w), span->scale);
    ON(eight_bytes)((const uint8_t *)&minima, 0, -ON(half)(w + 2), span->least);
}

INLINE TARGET void ON(span_of_groups)(int kind, const Matrix *m, int64_t row, int64_t first, int64_t count, Span *span) {
    const int64_t g = row * m->groups + first * BLOCK / m->group;
    if (m->group == BLOCK && count == SPAN) {
        ON(eight_halves)(m->scale + 2 * g, 2, span->scale);
        ON(eight_bytes)(m->zero + g, 0, 1, span->least);
    } else {
        uint64_t halves[2] = {0}, zeros = 0;
        for (int64_t b = 0, h = g, within = first * BLOCK % m->group; b < count; b++) {
            uint16_t half;
            memcpy(&half, m->scale + 2 * h, 2);
            halves[b / 4] |= (uint64_t)half << (b % 4 * 16);
            zeros |= (uint64_t)m->zero[h] << (8 * b);
            within += BLOCK;
            if (within >= m->group) h++, within = 0;
        }
        ON(eight_halves)((const uint8_t *)halves, 2, span->scale);
        ON(eight_bytes)((const uint8_t *)&zeros, 0, 1, span->least);
    }
    for (int b = 0; b < SPAN; b++) span->least[b] = span->scale[b] * ((kind == GROUP8 ? 128.0f : 0.0f) - span->least[b]);
}

/* The codes of block b of a span whose bytes begin at w. */
INLINE TARGET Codes ON(codes_of)(int kind, const uint8_t *w, int64_t b) {
    const int64_t bytes = FORMATS[kind].bytes;
    switch (kind) {
    case Q8_0: return ON(whole_bytes)(w + b * bytes + 2);
    case Q4_0: return ON(plus)(ON(nibbles_of_16)(w + b * bytes + 2), SIGNED ? -8 : 0);
    case Q4_1: return ON(nibbles_of_16)(w + b * bytes + 4);
    case Q4_K: return ON(nibbles_of_32)(w + 16 + b / 2 * 32, (int)(b % 2));
    case Q5_K: return ON(more_bits)(ON(nibbles_of_32)(w + 48 + b / 2 * 32, (int)(b % 2)), w + 16, (int)b, 1);
    case Q6_K: { /* blocks 0 and 2, 1 and 3 of each 128 columns share bytes */
        const uint8_t *low = w + b / 4 * 64 + b % 2 * 32, *high = w + 128 + b / 4 * 32;
        Codes codes = ON(more_bits)(ON(nibbles_of_32)(low, b % 4 > 1), high, (int)(b % 4 * 2), 3);
        return ON(plus)(codes, -32);
    }
    case GROUP4: return ON(pairs_of_16)(w + b * 16);
    default: return ON(plus)(ON(whole_bytes)(w + b * 32), -128);
    }
}

/* One span of one row, `count` blocks of it. `scale` are of the activations, multiplied into the span's here. */
INLINE TARGET Floats ON(one_span)(int kind, Floats total, const uint8_t *w, Span *span, const Activations *a, int64_t at,
                                  int64_t count) {
    const int8_t *x = a->codes + at * BLOCK;
    float product[SPAN] __attribute__((aligned(32)));
    for (int i = 0; i < SPAN; i++) product[i] = span->scale[i] * a->scale[at + i];
    if (FORMATS[kind].has_least || (!SIGNED && kind == Q4_0)) total = ON(add_eight)(total, span->least, a->sum + at);
    for (int64_t b = 0; b < count; b++) {
        Sums dot = ON(dot)(ON(codes_of)(kind, w, b), x + b * BLOCK, kind == Q6_K ? 8 : FORMATS[kind].bits);
        if (kind == Q6_K)
            total = ON(add_halves)(total, dot, span->scale + 2 * b, a->scale[at + b]);
        else
            total = ON(add_scaled_sums)(total, dot, product[b]);
    }
    return total;
}

INLINE TARGET void ON(one_row)(int kind, const Matrix *m, int64_t row, const Activations *a, float *out) {
    const int64_t bytes = span_bytes(kind), blocks = (m->columns + BLOCK - 1) / BLOCK;
    for (int64_t t = 0; t < a->tokens; t++) {
        Floats total = ON(no_floats)();
        for (int64_t first = 0; first < blocks; first += SPAN) {
            const uint8_t *w = row_at(m, row) + first / SPAN * bytes;
            int64_t count = smaller(SPAN, blocks - first), left = (m->columns - first * BLOCK);
            uint8_t edge[SPAN * BLOCK];
            Span span;
            next_page(w, bytes);
            if (kind == GROUP4 || kind == GROUP8) {
                ON(span_of_groups)(kind, m, row, first, count, &span);
                if (left < SPAN * BLOCK && left % BLOCK) { /* the last block ends early */
                    memset(edge, 0, sizeof edge);
                    memcpy(edge, w, (size_t)(kind == GROUP4 ? (left + 1) / 2 : left));
                    w = edge;
                }
            } else if (FORMATS[kind].columns == SUPER) {
                ON(span_of_super)(kind, w, &span);
            } else {
                ON(span_of_blocks)(kind, w, count, &span);
            }
            total = ON(one_span)(kind, total, w, &span, a, t * a->blocks + first, count);
        }
        out[t * m->rows + row] = ON(sum_of)(total);
    }
}

#define ROWS(kind) \
    case kind: \
        for (int64_t r = first; r < first + count; r++) ON(one_row)(kind, m, r, a, out); \
        break;

static TARGET void ON(rows)(const Matrix *m, int64_t first, int64_t count, const Activations *a, float *out, Plain scratch) {
    (void)scratch;
    switch (m->kind) { ROWS(Q8_0) ROWS(Q4_0) ROWS(Q4_1) ROWS(Q4_K) ROWS(Q5_K) ROWS(Q6_K) ROWS(GROUP4) ROWS(GROUP8) }
}
#undef ROWS

static TARGET void ON(round)(const Activations *a, int64_t token) { round_token(a, token); }
