/* AVX-512 with VNNI: rows from rows_avx512.h, tiles from tiles_avx512.c, floats 16 to a register. */
#if defined(__x86_64__) || defined(_M_X64)
#include "rows_avx512.h"
#include "tiles_avx512.h"

#define ON(name) avx512_##name
#define LANES 16
#include "vectors.h"

INLINE TARGET Lanes avx512_load_halves(const uint8_t *at) {
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at));
}

INLINE TARGET void avx512_save_halves(uint8_t *at, Lanes x) {
    _mm256_storeu_si256((__m256i *)at, _mm512_cvtps_ph((__m512)x, _MM_FROUND_TO_NEAREST_INT));
}

#include "floats.h"
#include "store.h"
#include "attention.h"
#undef ON
#undef LANES

static int has_avx512_vnni(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}

const Isa fourbit_avx512 = {
    "avx512-vnni", has_avx512_vnni, avx512_round, avx512_rows, fourbit_avx512_tile, AVX512_PANEL, FLOATS(avx512, 16),
};
#endif
