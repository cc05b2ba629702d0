/* What one instruction set can do: a table of functions. Each set has a file of its own that compiles on its own; library.c
 * chooses among them when it runs.
 */
#ifndef FOURBIT_ISA_H
#define FOURBIT_ISA_H

#include "panels.h"
#include "pool.h"
#include "unpack.h"

typedef void (*Rows)(const Matrix *, int64_t first, int64_t count, const Activations *, float *out, Plain scratch);

typedef void (*Tiles)(const Matrix *, int64_t first, int64_t count, const Panels *, int64_t tokens, float *out,
                      uint8_t *memory, Plain scratch);

typedef struct {
    const char *name;
    int (*available)(void);
    void (*round)(const Activations *, int64_t token);
    Rows rows;
    Tiles tile; /* NULL: `rows` takes any number of tokens */
    int64_t panel; /* tokens side by side in a panel */
    void (*float_rows)(const Matrix *, int64_t, int64_t, const Activations *, float *, Plain, float *);
    void (*norm)(const float *, int64_t, const float *, float, float *);
    void (*turn)(float *, int64_t, const float *, const float *, int);
    void (*gate)(const float *, const float *, int64_t, float *);
    void (*store)(const CacheLayer *, const float *, uint8_t *);
    int64_t lanes;
    Task attend;
} Isa;

/* The functions on floats of a set, and the floats in its registers. */
#define FLOATS(isa, lanes) isa##_float_rows, isa##_norm, isa##_turn, isa##_gate, isa##_store, lanes, isa##_attend

extern const Isa fourbit_avx2, fourbit_avx512, fourbit_neon, fourbit_dotprod;

#endif
