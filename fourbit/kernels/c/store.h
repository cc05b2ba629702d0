/* New keys and values into the cache: as floats, as halves, or rounded to Q8_0 or Q4_0 blocks of 32.
 * Included once per target, after vectors.h.
 */

INLINE TARGET void ON(store_q8)(const float *x, uint8_t *block) {
    float most = 0;
    for (int j = 0; j < BLOCK; j++) most = fabsf(x[j]) > most || x[j] != x[j] ? fabsf(x[j]) : most;
    float d = most / 127, inverse = d > 0 ? 1 / d : 0;
    uint16_t half = float_to_half(d);
    memcpy(block, &half, 2);
    for (int j = 0; j < BLOCK; j++) {
        float code = x[j] * inverse;
        block[2 + j] = (uint8_t)(int8_t)(code >= -127.5f && code <= 127.5f ? rintf(code) : 0);
    }
}

/* Q4_0 gives the value that is largest in size the code 0, that is -8: the range -8 ... 7 is used on its longer side. */
INLINE TARGET void ON(store_q4)(const float *x, uint8_t *block) {
    float extreme = 0;
    for (int j = 0; j < BLOCK; j++) extreme = fabsf(x[j]) > fabsf(extreme) || x[j] != x[j] ? x[j] : extreme;
    float d = extreme / -8, inverse = d != 0 ? 1 / d : 0;
    uint16_t half = float_to_half(d);
    memcpy(block, &half, 2);
    uint8_t codes[BLOCK];
    for (int j = 0; j < BLOCK; j++) {
        float code = x[j] * inverse + 8.5f;
        codes[j] = (uint8_t)(code >= 0 ? (code < 15 ? code : 15) : 0);
    }
    for (int j = 0; j < 16; j++) block[2 + j] = (uint8_t)(codes[j] | codes[j + 16] << 4);
}

static TARGET void ON(store)(const CacheLayer *c, const float *x, uint8_t *row) {
    int64_t i = 0;
    switch (c->kind) {
    case CACHE_F32: memcpy(row, x, (size_t)c->width * 4); break;
    case CACHE_F16:
        for (; i + LANES <= c->width; i += LANES) ON(save_halves)(row + 2 * i, ON(load)(x + i));
        for (; i < c->width; i++) {
            uint16_t half = float_to_half(x[i]);
            memcpy(row + 2 * i, &half, 2);
        }
        break;
    default:
        for (int64_t b = 0; b < c->width / BLOCK; b++)
            if (c->kind == CACHE_Q8)
                ON(store_q8)(x + b * BLOCK, row + b * 34);
            else
                ON(store_q4)(x + b * BLOCK, row + b * 18);
    }
}
