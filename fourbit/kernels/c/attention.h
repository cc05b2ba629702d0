/* Attention over a KV cache. Included once per target, after floats.h.
 *
 * Positions come in tiles. For each query we keep the largest score so far, the sum of exponentials relative to it, and
 * the weighted sum of values: when a larger score comes, both sums shrink by the same factor (online softmax: Milakov &
 * Gimelshein, arXiv:1805.02867; FlashAttention: Dao et al., arXiv:2205.14135).
 *
 * Two ways to fill a register. With few queries a register holds neighboring channels of one of them, and a score is a sum
 * across its lanes. With many it holds one channel of as many queries: nothing is summed across lanes, and softmax is the
 * same for all.
 */
#ifndef FOURBIT_ATTENTION_H
#define FOURBIT_ATTENTION_H

enum { TILE_POSITIONS = 64, FEW_QUERIES = 8, TOGETHER = 4 };

/* Up to FEW_TOKENS tokens go one by one, so that each has the same result, bit for bit, as it has alone. */

typedef struct {
    const CacheLayer *cache;
    const float *queries; /* (tokens, heads, width) */
    float *out;
    int64_t tokens, heads, start, lanes;
    float *scratch;
    int64_t scratch_floats; /* per worker */
} Attention;

/* Queries that share a key head. */
INLINE int64_t shared_heads(const Attention *a) { return a->heads / a->cache->kv_heads; }

/* Where query q of a key head is, in `queries` and `out`: queries of one token come together. */
INLINE int64_t query_at(const Attention *a, int64_t head, int64_t q) {
    int64_t shared = shared_heads(a);
    return (q / shared * a->heads + head * shared + q % shared) * a->cache->width;
}

INLINE int one_by_one(const Attention *a) { return a->tokens <= FEW_TOKENS; }

/* Groups of FEW_QUERIES queries of a token and key head. */
INLINE int64_t groups_of(const Attention *a) { return (shared_heads(a) + FEW_QUERIES - 1) / FEW_QUERIES; }

/* Tasks, and floats of scratch for each worker. */
static int64_t attention_tasks(const Attention *a) {
    int64_t many = (a->tokens * shared_heads(a) + a->lanes - 1) / a->lanes;
    return (one_by_one(a) ? a->tokens * groups_of(a) : many) * a->cache->kv_heads;
}

static int64_t attention_scratch(const Attention *a) {
    int64_t rows = TILE_POSITIONS + 2 * a->lanes + FEW_QUERIES, weights = a->lanes * TILE_POSITIONS;
    return rows * a->cache->width + weights;
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

/* Scores of a query become weights relative to the largest of all tiles so far; returns by what older sums shrink. */
INLINE TARGET float ON(soften)(float *scores, int64_t count, float *largest, float *sum) {
    float most = *largest;
    for (int64_t p = 0; p < count; p++) most = scores[p] > most || scores[p] != scores[p] ? scores[p] : most;
    float shrink = ON(exponential)(ON(all)(*largest - most))[0];
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

/* to = shrink * to + the sum over positions of weight * value; four registers of channels at a time. */
INLINE TARGET void ON(add_values)(float *to, float shrink, const uint8_t *rows, int64_t row_bytes, int halves,
                                  const float *weights,
                                  int64_t count, int64_t width) {
    int64_t c = 0;
    for (; c + TOGETHER * LANES <= width; c += TOGETHER * LANES) {
        Lanes sums[TOGETHER];
        for (int j = 0; j < TOGETHER; j++) sums[j] = ON(load)(to + c + j * LANES) * shrink;
        for (int64_t p = 0; p < count; p++) {
            const uint8_t *row = rows + p * row_bytes;
            for (int j = 0; j < TOGETHER; j++) sums[j] += weights[p] * ON(lanes_at)(row, c + j * LANES, halves);
        }
        for (int j = 0; j < TOGETHER; j++) ON(save)(to + c + j * LANES, sums[j]);
    }
    for (; c < width; c++) {
        to[c] *= shrink;
        for (int64_t p = 0; p < count; p++) {
            const uint8_t *row = rows + p * row_bytes;
            to[c] += weights[p] * (halves ? load_half(row + 2 * c) : ((const float *)row)[c]);
        }
    }
}

/* `queries` queries of one token and key head, from query `first` of the key head on. */
INLINE TARGET void ON(attend_few)(const Attention *a, int64_t head, int64_t first, int64_t queries, float *scratch) {
    const CacheLayer *c = a->cache;
    const int64_t width = c->width, end = a->start + first / shared_heads(a) + 1;
    float *tile = scratch, *mixed = tile + TILE_POSITIONS * width;
    float scores[TILE_POSITIONS], largest[FEW_QUERIES], sum[FEW_QUERIES], scale = 1.0f / sqrtf((float)width);
    for (int64_t q = 0; q < queries; q++) largest[q] = -INFINITY, sum[q] = 0;
    memset(mixed, 0, (size_t)(queries * width) * sizeof(float));
    const int halves = c->kind == CACHE_F16 && queries == 1; /* decoding them once pays off with the second query */
    const int64_t row_bytes = halves ? c->row_bytes : width * 4;
    for (int64_t p = 0; p < end; p += TILE_POSITIONS) {
        int64_t here = smaller(TILE_POSITIONS, end - p), at = (head * c->capacity + p) * c->row_bytes;
        const uint8_t *keys = c->keys + at, *values = c->values + at;
        float all_scores[FEW_QUERIES][TILE_POSITIONS];
        if (!halves) keys = (const uint8_t *)ON(cache_tile)(c, keys, here, tile);
        for (int64_t q = 0; q < queries; q++)
            for (int64_t i = 0; i < here; i++) {
                const float *query = a->queries + query_at(a, head, first + q);
                all_scores[q][i] = ON(dot_row)(query, keys + i * row_bytes, width, halves) * scale;
            }
        if (!halves) values = (const uint8_t *)ON(cache_tile)(c, values, here, tile);
        for (int64_t q = 0; q < queries; q++) {
            memcpy(scores, all_scores[q], sizeof scores);
            float shrink = ON(soften)(scores, here, largest + q, sum + q);
            ON(add_values)(mixed + q * width, shrink, values, row_bytes, halves, scores, here, width);
        }
    }
    for (int64_t q = 0; q < queries; q++)
        for (int64_t i = 0; i < width; i++) a->out[query_at(a, head, first + q) + i] = mixed[q * width + i] / sum[q];
}

/* sums[i] += the sum over j of x[j] (of LANES queries) * y[i * step_i + j * step_j] */
INLINE TARGET void ON(outer)(Lanes sums[TOGETHER], const float *x, const float *y, int64_t step_i, int64_t step_j,
                             int64_t count) {
    for (int64_t j = 0; j < count; j++) {
        Lanes both = ON(load)(x + j * LANES);
        for (int i = 0; i < TOGETHER; i++) sums[i] += both * y[i * step_i + j * step_j];
    }
}

/* LANES queries of one key head, from query `first` on: channel i of all of them at turned[i * LANES], times `scale`.
 * Queries behind the last repeat it; their results are not written. Returns the last position that each query sees. */
INLINE TARGET Ints ON(turn_queries)(const Attention *a, int64_t head, int64_t first, float scale, float *turned) {
    const int64_t shared = shared_heads(a), last = a->tokens * shared - 1;
    Ints seen = {0};
    for (int q = 0; q < LANES; q++) {
        int64_t query = smaller(first + q, last);
        seen[q] = (int32_t)(a->start + query / shared);
        const float *from = a->queries + query_at(a, head, query);
        for (int64_t i = 0; i < a->cache->width; i++) turned[i * LANES + q] = from[i] * scale;
    }
    return seen;
}

/* Scores of the positions from `p` on, `count` keys in `rows`, -infinity where a query does not see; returns the largest. */
INLINE TARGET Lanes ON(score_tile)(const float *turned, const float *rows, int64_t width, int64_t p, int64_t count,
                                   Ints seen, Lanes most, float *scores) {
    for (int64_t i = 0; i < count; i += TOGETHER) {
        const int64_t here = smaller(TOGETHER, count - i);
        Lanes sums[TOGETHER] = {{0}};
        if (here == TOGETHER)
            ON(outer)(sums, turned, rows + i * width, width, 1, width);
        else
            for (int64_t k = 0; k < here; k++)
                for (int64_t j = 0; j < width; j++) sums[k] += ON(load)(turned + j * LANES) * rows[(i + k) * width + j];
        for (int64_t k = 0; k < here; k++) {
            Lanes score = ON(choose)(seen >= (int32_t)(p + i + k), sums[k], ON(all)(-INFINITY));
            ON(save)(scores + (i + k) * LANES, score);
            most = ON(choose)((score > most) | (score != score), score, most);
        }
    }
    return most;
}

/* mixed = shrink * mixed + the weighted sum of a tile's values, channel by channel. */
INLINE TARGET void ON(mix_tile)(float *mixed, Lanes shrink, const float *weights, const float *rows, int64_t count,
                                int64_t width) {
    for (int64_t i = 0; i < width; i += TOGETHER) {
        const int64_t here = smaller(TOGETHER, width - i);
        Lanes sums[TOGETHER] = {{0}};
        for (int64_t k = 0; k < here; k++) sums[k] = ON(load)(mixed + (i + k) * LANES) * shrink;
        if (here == TOGETHER)
            ON(outer)(sums, weights, rows + i, 1, width, count);
        else
            for (int64_t k = 0; k < here; k++)
                for (int64_t j = 0; j < count; j++) sums[k] += ON(load)(weights + j * LANES) * rows[j * width + i + k];
        for (int64_t k = 0; k < here; k++) ON(save)(mixed + (i + k) * LANES, sums[k]);
    }
}

INLINE TARGET void ON(attend_many)(const Attention *a, int64_t head, int64_t first, float *scratch) {
    const CacheLayer *c = a->cache;
    const int64_t width = c->width, shared = shared_heads(a), last = a->tokens * shared - 1;
    const int64_t end = a->start + smaller(first + LANES - 1, last) / shared + 1;
    float *tile = scratch, *turned = tile + TILE_POSITIONS * width, *mixed = turned + width * LANES;
    float *weights = mixed + width * LANES;
    const Ints seen = ON(turn_queries)(a, head, first, 1.0f / sqrtf((float)width), turned);
    memset(mixed, 0, (size_t)(width * LANES) * sizeof(float));
    Lanes largest = ON(all)(-INFINITY), sum = {0};
    for (int64_t p = 0; p < end; p += TILE_POSITIONS) {
        int64_t here = smaller(TILE_POSITIONS, end - p), at = (head * c->capacity + p) * c->row_bytes;
        const float *rows = ON(cache_tile)(c, c->keys + at, here, tile);
        const Lanes most = ON(score_tile)(turned, rows, width, p, here, seen, largest, weights);
        Lanes shrink = ON(exponential)(largest - most), total = {0}; /* every query sees position 0: most is no -infinity */
        for (int64_t i = 0; i < here; i++) {
            Lanes weight = ON(exponential)(ON(load)(weights + i * LANES) - most);
            ON(save)(weights + i * LANES, weight);
            total += weight;
        }
        sum = sum * shrink + total, largest = most;
        ON(mix_tile)(mixed, shrink, weights, ON(cache_tile)(c, c->values + at, here, tile), here, width);
    }
    for (int64_t q = 0; q < LANES && first + q <= last; q++) {
        float *out = a->out + query_at(a, head, first + q);
        for (int64_t i = 0; i < width; i++) out[i] = mixed[i * LANES + q] / sum[q];
    }
}

static TARGET void ON(attend)(void *context, int64_t task, int worker) {
    const Attention *a = context;
    float *scratch = a->scratch + worker * a->scratch_floats;
    int64_t head = task % a->cache->kv_heads, rest = task / a->cache->kv_heads, shared = shared_heads(a);
    int64_t group = rest % groups_of(a) * FEW_QUERIES, token = rest / groups_of(a);
    if (one_by_one(a))
        ON(attend_few)(a, head, token * shared + group, smaller(FEW_QUERIES, shared - group), scratch);
    else
        ON(attend_many)(a, head, rest * LANES, scratch);
}

#undef Lanes
#undef Ints
#undef LooseLanes
