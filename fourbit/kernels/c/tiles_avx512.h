/* The one function of tiles_avx512.c. */
#ifndef FOURBIT_TILES_AVX512_H
#define FOURBIT_TILES_AVX512_H

#include "isa.h"

enum { AVX512_PANEL = 6 }; /* tokens side by side */

void fourbit_avx512_tile(const Matrix *m, int64_t first, int64_t count, const Panels *p, int64_t tokens, float *out,
                         uint8_t *memory, Plain scratch);

#endif
