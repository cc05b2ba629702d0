/* Products of a few rows with all tokens, in plain C: each row is unpacked once, then multiplied as integers. */

/* Sum over the blocks of scale * (scale_w * sum(code_w * code_x) + least_w * sum(code_x)). */
static float dot_plain(Plain row, int step, const Activations *a, int64_t token) {
    const int8_t *x = a->codes + token * a->blocks * BLOCK;
    float total = 0;
    for (int64_t b = 0; b < a->blocks; b++) {
        float part = 0;
        for (int at = 0; at < BLOCK; at += step) {
            int64_t i = (b * BLOCK + at) / step;
            int32_t dot = 0;
            for (int64_t c = b * BLOCK + at; c < b * BLOCK + at + step; c++) dot += row.codes[c] * x[c];
            part += row.scale[i] * (float)dot;
        }
        total += a->scale[token * a->blocks + b] * part;
    }
    return total;
}

static float dot_least(Plain row, const Activations *a, int64_t token) {
    const float *sums = a->sum + token * a->blocks;
    float total = 0;
    for (int64_t b = 0; b < a->blocks; b++) total += row.least[b] * sums[b];
    return total;
}

static void scalar_rows(const Matrix *m, int64_t first, int64_t count, const Activations *a, float *out, Plain scratch) {
    const Format format = FORMATS[m->kind];
    for (int64_t r = first; r < first + count; r++) {
        unpack_row(m, r, a->blocks, scratch);
        for (int64_t t = 0; t < a->tokens; t++) {
            float dot = dot_plain(scratch, format.step, a, t);
            out[t * m->rows + r] = format.has_least ? dot + dot_least(scratch, a, t) : dot;
        }
    }
}

static void scalar_round(const Activations *a, int64_t token) { round_token(a, token); }
