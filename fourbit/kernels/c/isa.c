/* One table per instruction set, the best last; the library runs on processors that have none but the first. */
#include "common.h"

typedef void (*Rows)(const Matrix *, int64_t first, int64_t count, const Activations *, float *out, Plain scratch);

typedef struct {
    const char *name;
    void (*round)(const Activations *, int64_t token);
    Rows rows;
    void (*float_rows)(const Matrix *, int64_t, int64_t, const Activations *, float *, Plain, float *);
    void (*norm)(const float *, int64_t, const float *, float, float *);
    void (*turn)(float *, int64_t, const float *, const float *, int);
    void (*gate)(const float *, const float *, int64_t, float *);
    Task attend;
} Isa;

static int always(void) { return 1; }

static const Isa ISAS[] = {
    {"scalar", scalar_round, scalar_rows, base_float_rows, base_norm, base_turn, base_gate, base_attend_tile},
};
static int (*const AVAILABLE[])(void) = {always};

enum { ISA_COUNT = sizeof(ISAS) / sizeof(ISAS[0]) };

/* The name of the n-th set that this processor has, or NULL. */
EXPORT const char *fourbit_isa(int n) { return n >= 0 && n < ISA_COUNT && AVAILABLE[n]() ? ISAS[n].name : NULL; }
EXPORT int fourbit_isa_count(void) { return ISA_COUNT; }
