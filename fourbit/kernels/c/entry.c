/* The functions that Python calls. All arguments have been checked there. 0 is success, -1 no memory. */
#include "common.h"

enum { CHUNK_ROWS = 32 };

typedef struct {
    const Isa *isa;
    const Matrix *const *matrices;
    float *const *outs;
    int count;
    const Activations *activations;
    const Panels *panels; /* NULL for few tokens */
    uint8_t *scratch;
    int64_t scratch_bytes; /* per worker */
} Product;

static int64_t plain_bytes(int64_t columns) {
    int64_t padded = rounded_up(columns, BLOCK * PADDED_BLOCKS);
    return rounded_up(padded, 64) + 2 * rounded_up(padded / HALF_BLOCK * 4, 64);
}

static Plain plain_at(uint8_t *memory, int64_t columns) {
    int64_t padded = rounded_up(columns, BLOCK * PADDED_BLOCKS), scales = rounded_up(padded / HALF_BLOCK * 4, 64);
    Plain plain = {(int8_t *)memory, (float *)(memory + padded), (float *)(memory + padded + scales)};
    return plain;
}

static void product_chunk(void *context, int64_t chunk, int worker) {
    const Product *p = context;
    int i = 0;
    for (; chunk >= (p->matrices[i]->rows + CHUNK_ROWS - 1) / CHUNK_ROWS; i++)
        chunk -= (p->matrices[i]->rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
    const Matrix *m = p->matrices[i];
    int64_t first = chunk * CHUNK_ROWS, count = smaller(CHUNK_ROWS, m->rows - first);
    uint8_t *memory = p->scratch + worker * p->scratch_bytes, *after = memory + plain_bytes(m->columns);
    Plain plain = plain_at(memory, m->columns);
    if (has_codes(m) && p->panels)
        p->isa->tile(m, first, count, p->panels, p->activations->tokens, p->outs[i], after, plain);
    else if (has_codes(m))
        p->isa->rows(m, first, count, p->activations, p->outs[i], plain);
    else
        p->isa->float_rows(m, first, count, p->activations, p->outs[i], plain, (float *)after);
}

/* outs[i] (tokens, rows) = x (tokens, columns) times the transpose of matrices[i], all with the same columns. */
EXPORT int fourbit_matmul(int isa, int threads, int count, const Matrix *const *matrices, const float *x, int64_t tokens,
                          float *const *outs) {
    int64_t columns = matrices[0]->columns, chunks = 0;
    int orders = 0;
    for (int i = 0; i < count; i++) {
        if (has_codes(matrices[i])) orders |= 1 << order_of(matrices[i]->kind);
        chunks += (matrices[i]->rows + CHUNK_ROWS - 1) / CHUNK_ROWS;
    }
    Activations a = {.tokens = tokens, .exact = x, .columns = columns};
    void *rounded = orders ? activations_new(&a, x, tokens, columns, orders) : NULL;
    int64_t bytes = plain_bytes(columns) + rounded_up(columns * 4, 64);
    Panels panels;
    int many = orders && ISAS[isa]->tile && tokens > FEW_TOKENS;
    void *side_by_side = many ? panels_new(&panels, &a, ISAS[isa]->panel) : NULL;
    if (many) bytes += tile_bytes(a.blocks);
    uint8_t *scratch = aligned_bytes(threads * bytes);
    int failed = !scratch || (orders && !rounded) || (many && !side_by_side);
    if (!failed) {
        for (int64_t t = 0; orders && t < tokens; t++) ISAS[isa]->round(&a, t);
        for (int64_t i = 0; many && i < panels.count; i++) panel_fill(&panels, &a, i);
        Product product = {ISAS[isa], matrices, outs, count, &a, many ? &panels : NULL, scratch, bytes};
        run_chunks(product_chunk, &product, chunks, threads);
    }
    aligned_free(rounded);
    aligned_free(side_by_side);
    aligned_free(scratch);
    return -failed;
}

/* out (count, columns): the rows of a matrix that `ids` name. */
EXPORT int fourbit_rows(const Matrix *m, const int64_t *ids, int64_t count, float *out) {
    uint8_t *scratch = aligned_bytes(plain_bytes(m->columns));
    if (!scratch) return -1;
    for (int64_t i = 0; i < count; i++) decode_row(m, ids[i], plain_at(scratch, m->columns), out + i * m->columns);
    aligned_free(scratch);
    return 0;
}

EXPORT void fourbit_rms_norm(int isa, const float *x, int64_t tokens, int64_t width, const float *weight, float eps,
                             float *out) {
    for (int64_t t = 0; t < tokens; t++) ISAS[isa]->norm(x + t * width, width, weight, eps, out + t * width);
}

EXPORT void fourbit_rope(int isa, float *x, int64_t tokens, int64_t heads, int64_t width, const float *cosine,
                         const float *sine, int neighbors) {
    for (int64_t i = 0; i < tokens * heads; i++) {
        int64_t angles = i / heads * (width / 2);
        ISAS[isa]->turn(x + i * width, width / 2, cosine + angles, sine + angles, neighbors);
    }
}

EXPORT void fourbit_swiglu(int isa, const float *gate, const float *up, int64_t count, float *out) {
    ISAS[isa]->gate(gate, up, count, out);
}

/* x (tokens, width) += y; the next token's y is `stride` floats on, 0 when all get the same. */
EXPORT void fourbit_add(float *x, int64_t tokens, int64_t width, const float *y, int64_t stride) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t i = 0; i < width; i++) x[t * width + i] += y[t * stride + i];
}

/* keys and values (tokens, kv_heads, width) to the positions from `position` on. */
EXPORT void fourbit_store(int isa, const CacheLayer *c, int64_t position, int64_t tokens, const float *keys, const float *values) {
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t h = 0; h < c->kv_heads; h++) {
            int64_t to = (h * c->capacity + position + t) * c->row_bytes, from = (t * c->kv_heads + h) * c->width;
            ISAS[isa]->store(c, keys + from, c->keys + to);
            ISAS[isa]->store(c, values + from, c->values + to);
        }
}

/* out (tokens, heads * width): the queries' attention to positions 0 ... start + their own number. One more of at most
 * `most` threads for each `worth` bytes that are read. */
EXPORT int fourbit_attend(int isa, int64_t most, int64_t worth, const float *queries, int64_t tokens, int64_t heads,
                          const CacheLayer *c, int64_t start, float *out) {
    int64_t threads = smaller(most, 1 + tokens * (start + tokens) * 2 * c->kv_heads * c->row_bytes / worth);
    Attention a = {c, queries, out, tokens, heads, start, ISAS[isa]->lanes, NULL, 0};
    a.scratch_floats = rounded_up(attention_scratch(&a), 16);
    a.scratch = aligned_bytes(threads * a.scratch_floats * 4);
    if (!a.scratch) return -1;
    run_chunks(ISAS[isa]->attend, &a, attention_tasks(&a), (int)threads);
    aligned_free(a.scratch);
    return 0;
}
