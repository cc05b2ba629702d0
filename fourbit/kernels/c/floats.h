/* What a transformer does in float32 besides its matrices: norms, rotations, gates, and products with float weights.
 * Included once per target, after vectors.h.
 */

/* LANES numbers of a row of float32 or float16, from number i on. */
INLINE TARGET Lanes ON(lanes_at)(const uint8_t *row, int64_t i, int halves) {
    return halves ? ON(load_halves)(row + 2 * i) : ON(load)((const float *)(row + 4 * i));
}

/* The product of float32 numbers with a row. Four sums side by side keep the adders busy. */
INLINE TARGET float ON(dot_row)(const float *x, const uint8_t *row, int64_t n, int halves) {
    Lanes sums[4] = {{0}};
    int64_t i = 0;
    for (; i + 4 * LANES <= n; i += 4 * LANES)
        for (int k = 0; k < 4; k++) sums[k] += ON(load)(x + i + k * LANES) * ON(lanes_at)(row, i + k * LANES, halves);
    for (; i + LANES <= n; i += LANES) sums[0] += ON(load)(x + i) * ON(lanes_at)(row, i, halves);
    float rest = 0;
    for (; i < n; i++) rest += x[i] * (halves ? load_half(row + 2 * i) : ((const float *)row)[i]);
    return ON(total)((sums[0] + sums[1]) + (sums[2] + sums[3])) + rest;
}

INLINE TARGET void ON(halves)(const uint8_t *from, int64_t n, float *to) {
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) ON(save)(to + i, ON(load_halves)(from + 2 * i));
    for (; i < n; i++) to[i] = load_half(from + 2 * i);
}

/* F32, F16, and groups that no block of 32 fits: decoded one row at a time; activations are not rounded. */
static TARGET void ON(float_rows)(const Matrix *m, int64_t first, int64_t count, const Activations *a, float *out,
                                  Plain scratch, float *row) {
    for (int64_t r = first; r < first + count; r++) {
        const int direct = m->kind == F32 || (m->kind == F16 && a->tokens == 1);
        const uint8_t *values = direct ? row_at(m, r) : (const uint8_t *)row;
        if (m->kind == F16 && !direct) ON(halves)(row_at(m, r), m->columns, row);
        if (m->kind != F16 && !direct) decode_row(m, r, scratch, row);
        for (int64_t t = 0; t < a->tokens; t++)
            out[t * m->rows + r] = direct && m->kind == F16 ? ON(dot_row)(a->exact + t * m->columns, values, m->columns, 1)
                                                            : ON(dot_row)(a->exact + t * m->columns, values, m->columns, 0);
    }
}

/* out = x / sqrt(mean(x^2) + eps) * weight */
static TARGET void ON(norm)(const float *x, int64_t width, const float *weight, float eps, float *out) {
    float scale = 1.0f / sqrtf(ON(dot_row)(x, (const uint8_t *)x, width, 0) / (float)width + eps);
    for (int64_t i = 0; i < width; i++) out[i] = x[i] * scale * weight[i];
}

/* Turn the pairs of a head by an angle each; a pair's channels are neighbors, or half a head apart. */
static TARGET void ON(turn)(float *x, int64_t half, const float *cosine, const float *sine, int neighbors) {
    if (neighbors)
        for (int64_t i = 0; i < half; i++) {
            float left = x[2 * i], right = x[2 * i + 1];
            x[2 * i] = left * cosine[i] - right * sine[i];
            x[2 * i + 1] = left * sine[i] + right * cosine[i];
        }
    else
        for (int64_t i = 0; i < half; i++) {
            float left = x[i], right = x[i + half];
            x[i] = left * cosine[i] - right * sine[i];
            x[i + half] = left * sine[i] + right * cosine[i];
        }
}

/* out = gate / (1 + exp(-gate)) * up */
static TARGET void ON(gate)(const float *gate, const float *up, int64_t count, float *out) {
    for (int64_t i = 0; i < count; i += LANES) {
        float edge[3][LANES] = {{0}};
        int whole = count - i >= LANES;
        size_t bytes = (size_t)smaller(count - i, LANES) * sizeof(float);
        if (!whole) memcpy(edge[0], gate + i, bytes), memcpy(edge[1], up + i, bytes);
        Lanes g = ON(load)(whole ? gate + i : edge[0]), u = ON(load)(whole ? up + i : edge[1]);
        ON(save)(whole ? out + i : edge[2], g / (1.0f + ON(exponential)(-g)) * u);
        if (!whole) memcpy(out + i, edge[2], bytes);
    }
}
