/* The whole library in one translation unit: it compiles in about a second, and nothing but what is EXPORTed is seen.
 *
 * From here on, in the order of the data: formats and how to unpack them, activations, products of rows, floats,
 * attention; then the choice of the instruction set, and the functions that Python calls.
 */
#include "common.h"
#include "formats.h"
#include "half.h"
#include "pool.c"
#include "activations.c"
#include "panels.c"
#include "unpack.c"
#include "rows_scalar.c"
#include "store.c"
#include "target_base.c"
#include "target_avx2.c"
#include "target_neon.c"
#include "rows_avx512.c"
#include "tiles_avx512.c"
#include "target_avx512.c"
#include "isa.c"
#include "entry.c"
