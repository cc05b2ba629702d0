/* Activations for the products of many tokens: a few tokens side by side, four columns of each at a time.
 *
 * A panel has `width` tokens. For each block of 32 columns it holds 8 x width x 4 codes, so that the inner loop reads them
 * in order, four codes (one 32-bit number) a token; then width scales, sums, and the whole numbers at which the sums of
 * products begin: codes of weights are stored with an offset (8, 128, or 32 with Q6_K's half blocks), so a sum begins
 * at -offset * the sum of the activations' codes.
 */
#ifndef FOURBIT_PANELS_H
#define FOURBIT_PANELS_H

#include "activations.h"

enum Start { START_8, START_128, START_32, STARTS };

typedef struct {
    int64_t width, count, blocks;
    int8_t *codes;           /* (count, blocks, 8, width, 4) */
    float *scale, *sum;      /* (count, blocks, width) */
    int32_t *start[STARTS];  /* (count, blocks, width); START_32: (count, 2 * blocks, width) */
} Panels;

static void *panels_new(Panels *p, const Activations *a, int64_t width) {
    int64_t count = (a->tokens + width - 1) / width, all = count * width * a->blocks;
    uint8_t *memory = aligned_bytes(all * (BLOCK + 4 + 4 + 4 + 4 + 8));
    *p = (Panels){width, count, a->blocks, (int8_t *)memory, (float *)(memory + all * BLOCK), NULL, {NULL}};
    p->sum = p->scale + all;
    p->start[START_8] = (int32_t *)(p->sum + all);
    p->start[START_128] = p->start[START_8] + all;
    p->start[START_32] = p->start[START_128] + all;
    return memory;
}

/* One panel; tokens behind the last are zeros. */
static void panel_fill(const Panels *p, const Activations *a, int64_t panel) {
    for (int64_t i = 0; i < p->width; i++) {
        int64_t token = panel * p->width + i;
        int there = token < a->tokens;
        for (int64_t b = 0; b < p->blocks; b++) {
            int64_t to = (panel * p->blocks + b) * p->width + i, from = there ? token * p->blocks + b : 0;
            const int32_t *sums = a->half_sum + 2 * from;
            int8_t *codes = p->codes + (panel * p->blocks + b) * BLOCK * p->width + 4 * i;
            for (int k = 0; k < 8; k++) {
                int32_t four = 0;
                if (there) memcpy(&four, a->codes + from * BLOCK + 4 * k, 4);
                memcpy(codes + 4 * k * p->width, &four, 4);
            }
            p->scale[to] = there ? a->scale[from] : 0;
            p->sum[to] = there ? a->sum[from] : 0;
            p->start[START_8][to] = there ? -8 * (sums[0] + sums[1]) : 0;
            p->start[START_128][to] = there ? -128 * (sums[0] + sums[1]) : 0;
            int32_t *halves = p->start[START_32] + (panel * p->blocks + b) * 2 * p->width + i;
            halves[0] = there ? -32 * sums[0] : 0;
            halves[p->width] = there ? -32 * sums[1] : 0;
        }
    }
}

INLINE int start_of(int64_t kind) { return kind == Q4_0 ? START_8 : kind == Q6_K ? START_32 : START_128; }

/* A tile is a few rows (at most 32) of weights side by side, unpacked: codes (blocks, 8, rows, 4), scale and least (blocks
 * or half blocks, rows). It stays in the second-level cache while all panels pass. */
enum { TILE_ROWS = 32 };

typedef struct {
    uint8_t *codes;
    float *scale, *least;
} Tile;

static int64_t tile_bytes(int64_t blocks) { return TILE_ROWS * blocks * (BLOCK + 4 * 2 + 4 * 2); }

static Tile tile_at(uint8_t *memory, int64_t blocks) {
    float *scale = (float *)(memory + TILE_ROWS * blocks * BLOCK);
    return (Tile){memory, scale, scale + 2 * TILE_ROWS * blocks};
}

#endif
