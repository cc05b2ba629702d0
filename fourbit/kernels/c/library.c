/* The part of the library that every processor runs: threads, the portable kernels, the choice of an instruction set, and
 * the functions that Python calls.
 *
 * To read along, in the order of the data: formats.h and unpack.h (weights), activations.h and panels.h (activations),
 * rows_scalar.c (products, the plain way), rows_narrow.h, units_avx512.h and rows_avx512.h (one token), tiles_narrow.h and
 * tiles_avx512.c (many tokens), floats.h and attention.h (the rest of a transformer), pool.c (threads),
 * tape.c (a whole pass).
 */
#include "isa.h"

#include "pool.c"
#include "rows_scalar.c"
#include "target_base.c"

static int always(void) { return 1; }

static const Isa scalar = {"scalar", always, scalar_round, scalar_rows, NULL, 1, FLOATS(base, 4)};

/* The best last. */
static const Isa *const ISAS[] = {
    &scalar,
#if defined(__x86_64__) || defined(_M_X64)
    &fourbit_avx2, &fourbit_avx512,
#elif defined(__aarch64__) || defined(_M_ARM64)
    &fourbit_neon, &fourbit_dotprod,
#endif
};

enum { ISA_COUNT = sizeof(ISAS) / sizeof(ISAS[0]) };

/* The name of the n-th set if this processor has it, or NULL. */
EXPORT const char *fourbit_isa(int n) { return n >= 0 && n < ISA_COUNT && ISAS[n]->available() ? ISAS[n]->name : NULL; }
EXPORT int fourbit_isa_count(void) { return ISA_COUNT; }
EXPORT int fourbit_few(void) { return FEW_TOKENS; }

#include "entry.c"
#include "tape.c"
