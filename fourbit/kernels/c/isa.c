/* One table per instruction set, the best last; the library runs on processors that have none but the first. */
#include "common.h"

typedef void (*Rows)(const Matrix *, int64_t first, int64_t count, const Activations *, float *out, Plain scratch);

typedef void (*Tiles)(const Matrix *, int64_t first, int64_t count, const Panels *, int64_t tokens, float *out,
                      uint8_t *memory, Plain scratch);

typedef struct {
    const char *name;
    int (*available)(void);
    void (*round)(const Activations *, int64_t token);
    Rows rows;
    Tiles tile; /* NULL: `rows` takes any number of tokens */
    int64_t panel, few; /* tokens of a panel; most tokens for which `rows` is quicker */
    void (*float_rows)(const Matrix *, int64_t, int64_t, const Activations *, float *, Plain, float *);
    void (*norm)(const float *, int64_t, const float *, float, float *);
    void (*turn)(float *, int64_t, const float *, const float *, int);
    void (*gate)(const float *, const float *, int64_t, float *);
    int64_t lanes;
    Task attend;
} Isa;

#define FLOATS(isa, lanes) isa##_float_rows, isa##_norm, isa##_turn, isa##_gate, lanes, isa##_attend

static int always(void) { return 1; }

static const Isa ISAS[] = {
    {"scalar", always, scalar_round, scalar_rows, NULL, 1, 0, FLOATS(base, 4)},
#if defined(__x86_64__) || defined(_M_X64)
    {"avx2", has_avx2, avx2_round, avx2_rows, avx2_tile, 3, 3, FLOATS(avx2, 8)},
    {"avx512-vnni", has_avx512_vnni, avx512_round, avx512_rows, avx512_tile, PANEL, 3, FLOATS(avx512, 16)},
#elif defined(__aarch64__) || defined(_M_ARM64)
    {"neon", always, neon_round, neon_rows, neon_tile, 4, 3, FLOATS(neon, 4)},
    {"neon-dotprod", has_dotprod, dotprod_round, dotprod_rows, dotprod_tile, 4, 3, FLOATS(neon, 4)},
#endif
};

enum { ISA_COUNT = sizeof(ISAS) / sizeof(ISAS[0]) };

/* The name of the n-th set if this processor has it, or NULL. */
EXPORT const char *fourbit_isa(int n) { return n >= 0 && n < ISA_COUNT && ISAS[n].available() ? ISAS[n].name : NULL; }
EXPORT int fourbit_isa_count(void) { return ISA_COUNT; }
