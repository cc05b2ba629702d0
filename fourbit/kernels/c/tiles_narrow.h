/* Products of rows with many tokens on registers of 16 or 32 bytes; tiles_avx512.c has the idea. A tile has two registers
 * of rows. Included once per instruction set, after rows_narrow.h; it has defined WIDTH, the whole numbers in a register,
 * NARROW_PANEL, the tokens of a panel, Dots, a register of whole numbers, and `dots`, the inner loop.
 */

/* Two registers of rows in the plain form, four codes of a row together. */
static TARGET void ON(unpack_tile)(const Matrix *m, int64_t first, int64_t blocks, Tile tile, Plain scratch) {
    const Format format = FORMATS[m->kind];
    const int64_t rows = 2 * WIDTH, steps = blocks * BLOCK / format.step;
    const int offset = SIGNED || format.bits == 8 ? 0 : format.offset;
    for (int64_t i = 0; i < rows; i++) { /* behind the last row: that row again, and its results are not stored */
        unpack_row(m, smaller(first + i, m->rows - 1), blocks, scratch);
        for (int64_t c = 0; offset && c < blocks * BLOCK; c++) scratch.codes[c] = (int8_t)(scratch.codes[c] + offset);
        for (int64_t k = 0; k < blocks * 8; k++) memcpy(tile.codes + (k * rows + i) * 4, scratch.codes + 4 * k, 4);
        for (int64_t s = 0; s < steps; s++) tile.scale[s * rows + i] = scratch.scale[s];
        for (int64_t s = 0; format.has_least && s < steps; s++) tile.least[s * rows + i] = scratch.least[s];
    }
}

INLINE TARGET void ON(tile_panel)(int bits, int64_t kind, Tile tile, const Panels *p, int64_t panel, int64_t tokens,
                                  int64_t count, float *out, int64_t stride) {
    const int columns = bits == 6 ? 4 : 8, per = 8 / columns, rows = 2 * WIDTH, with_least = FORMATS[kind].has_least;
    const int starts = !SIGNED && (kind == Q4_0 || kind == Q6_K);
    const int64_t begin = panel * p->blocks * NARROW_PANEL;
    const int8_t *x = p->codes + begin * BLOCK;
    const int32_t *start = p->start[start_of(kind)] + begin * per;
    Floats total[2][NARROW_PANEL];
    for (int t = 0; t < NARROW_PANEL; t++) total[0][t] = total[1][t] = ON(no_floats)();
    for (int64_t s = 0; s < p->blocks * per; s++) {
        Dots dot[2][NARROW_PANEL];
        for (int t = 0; t < NARROW_PANEL; t++) dot[0][t] = dot[1][t] = ON(repeat)(starts ? start[s * NARROW_PANEL + t] : 0);
        ON(dots)(bits, columns, tile.codes + s * columns * rows * 4, x + s * columns * NARROW_PANEL * 4, dot);
        for (int h = 0; h < 2; h++) {
            const float *at = tile.scale + s * rows + h * WIDTH, *least = tile.least + s * rows + h * WIDTH;
            for (int t = 0; t < NARROW_PANEL; t++) {
                int64_t i = begin + s / per * NARROW_PANEL + t;
                total[h][t] = ON(add_scaled_dots)(total[h][t], dot[h][t], at, p->scale[i]);
                if (with_least) total[h][t] = ON(add_repeated)(total[h][t], least, p->sum[i]);
            }
        }
    }
    for (int t = 0; t < NARROW_PANEL && panel * NARROW_PANEL + t < tokens; t++) {
        float results[2 * WIDTH];
        for (int h = 0; h < 2; h++) ON(save_floats)(results + h * WIDTH, total[h][t]);
        memcpy(out + (panel * NARROW_PANEL + t) * stride, results, (size_t)count * sizeof(float));
    }
}

#define TILE(bits) \
    case bits: \
        for (int64_t i = 0; i < p->count; i++) \
            ON(tile_panel)(bits, m->kind, tile, p, i, tokens, here, out + first + at, m->rows); \
        break;

static TARGET void ON(tile)(const Matrix *m, int64_t first, int64_t count, const Panels *p, int64_t tokens, float *out,
                            uint8_t *memory, Plain scratch) {
    Tile tile = tile_at(memory, p->blocks);
    for (int64_t at = 0; at < count; at += 2 * WIDTH) {
        int64_t here = smaller(2 * WIDTH, count - at);
        ON(unpack_tile)(m, first + at, p->blocks, tile, scratch);
        switch (FORMATS[m->kind].bits) { TILE(4) TILE(5) TILE(6) TILE(8) }
    }
}
#undef TILE
