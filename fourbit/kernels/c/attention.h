/* Attention over a KV cache. Included once per target, after floats.h.
 *
 * A task is one key head and a few tokens. Positions come in tiles; for each query we keep the largest score so far, the
 * sum of exponentials relative to it, and the weighted sum of values: when a larger score comes, both sums shrink by the
 * same factor (online softmax: Milakov & Gimelshein, arXiv:1805.02867; FlashAttention: Dao et al., arXiv:2205.14135).
 */
#ifndef FOURBIT_ATTENTION_H
#define FOURBIT_ATTENTION_H

enum { TILE_POSITIONS = 64, TILE_TOKENS = 8 };

typedef struct {
    const CacheLayer *cache;
    const float *queries; /* (tokens, heads, width) */
    float *out;
    int64_t tokens, heads, start;
    float *scratch;
    int64_t scratch_floats; /* per worker */
} Attention;

/* Floats of scratch for `queries` queries at a time. */
static int64_t attention_scratch(int64_t queries, int64_t width) {
    return TILE_POSITIONS * width + queries * (TILE_POSITIONS + width + 2 + LANES);
}
#endif

/* A tile of keys or values as floats (count, width): where they lie, or decoded to `to`. */
static TARGET const float *ON(cache_tile)(const CacheLayer *c, const uint8_t *rows, int64_t count, float *to) {
    if (c->kind == CACHE_F32) return (const float *)rows;
    for (int64_t i = 0; i < count; i++, rows += c->row_bytes) {
        float *row = to + i * c->width;
        if (c->kind == CACHE_F16) {
            ON(halves)(rows, c->width, row);
            continue;
        }
        for (int64_t b = 0; b < c->width / BLOCK; b++, row += BLOCK) {
            const uint8_t *block = rows + b * (c->kind == CACHE_Q8 ? 34 : 18);
            float d = load_half(block);
            if (c->kind == CACHE_Q8)
                for (int j = 0; j < BLOCK; j++) row[j] = d * (float)(int8_t)block[2 + j];
            else
                for (int j = 0; j < 16; j++) {
                    row[j] = d * (float)((block[2 + j] & 15) - 8);
                    row[j + 16] = d * (float)((block[2 + j] >> 4) - 8);
                }
        }
    }
    return to;
}

/* Scores to weights relative to the largest of all tiles so far; returns the factor by which older sums shrink. */
static TARGET float ON(soften)(float *scores, int64_t count, float *largest, float *sum) {
    float most = *largest;
    for (int64_t p = 0; p < count; p++) most = scores[p] > most || scores[p] != scores[p] ? scores[p] : most;
    float shift[LANES] = {*largest - most};
    float shrink = ON(exponential)(ON(load)(shift))[0];
    Lanes total = {0};
    for (int64_t p = count; p < rounded_up(count, LANES); p++) scores[p] = -INFINITY;
    for (int64_t p = 0; p < count; p += LANES) {
        Lanes weights = ON(exponential)(ON(load)(scores + p) - most);
        ON(save)(scores + p, weights);
        total += weights;
    }
    *sum = *sum * shrink + ON(total)(total);
    *largest = most;
    return shrink;
}

INLINE TARGET void ON(add_scaled)(float *to, float shrink, const float *values, const float *weights, int64_t count,
                                  int64_t width) {
    for (int64_t c = 0; c < width; c += LANES) {
        int64_t lanes = smaller(LANES, width - c);
        if (lanes < LANES) {
            for (int64_t i = c; i < width; i++) {
                to[i] *= shrink;
                for (int64_t p = 0; p < count; p++) to[i] += weights[p] * values[p * width + i];
            }
            continue;
        }
        Lanes sum = ON(load)(to + c) * shrink;
        for (int64_t p = 0; p < count; p++) sum += weights[p] * ON(load)(values + p * width + c);
        ON(save)(to + c, sum);
    }
}

static TARGET void ON(attend_tile)(void *context, int64_t chunk, int worker) {
    const Attention *a = context;
    const CacheLayer *c = a->cache;
    int64_t head = chunk % c->kv_heads, first = chunk / c->kv_heads * TILE_TOKENS, width = c->width;
    int64_t tokens = smaller(TILE_TOKENS, a->tokens - first), shared = a->heads / c->kv_heads, queries = tokens * shared;
    float *tile = a->scratch + worker * a->scratch_floats, *scores = tile + TILE_POSITIONS * width;
    float *mixed = scores + queries * TILE_POSITIONS, *largest = mixed + queries * width, *sum = largest + queries;
    for (int64_t q = 0; q < queries; q++) largest[q] = -INFINITY, sum[q] = 0;
    memset(mixed, 0, (size_t)(queries * width) * sizeof(float));
    float scale = 1.0f / sqrtf((float)width);
    int64_t end = a->start + first + tokens;
    const uint8_t *keys = c->keys + head * c->capacity * c->row_bytes;
    const uint8_t *values = c->values + head * c->capacity * c->row_bytes;
    for (int64_t p = 0; p < end; p += TILE_POSITIONS) {
        int64_t here = smaller(TILE_POSITIONS, end - p);
        const float *rows = ON(cache_tile)(c, keys + p * c->row_bytes, here, tile);
        for (int64_t q = 0; q < queries; q++) {
            int64_t token = first + q / shared, seen = a->start + token + 1 - p;
            const float *query = a->queries + (token * a->heads + head * shared + q % shared) * width;
            for (int64_t i = 0; i < here; i++)
                scores[q * TILE_POSITIONS + i] = i < seen ? ON(dot_floats)(query, rows + i * width, width) * scale : -INFINITY;
        }
        rows = ON(cache_tile)(c, values + p * c->row_bytes, here, tile);
        for (int64_t q = 0; q < queries; q++) {
            float *weights = scores + q * TILE_POSITIONS;
            if (a->start + first + q / shared < p) continue; /* nothing to see here: all scores are -infinity */
            float shrink = ON(soften)(weights, here, largest + q, sum + q);
            ON(add_scaled)(mixed + q * width, shrink, rows, weights, here, width);
        }
    }
    for (int64_t q = 0; q < queries; q++) {
        int64_t token = first + q / shared;
        float *out = a->out + (token * a->heads + head * shared + q % shared) * width;
        for (int64_t i = 0; i < width; i++) out[i] = mixed[q * width + i] / sum[q];
    }
}
