/* Floats on AVX-512: 16 in a register. */
#if defined(__x86_64__) || defined(_M_X64)
#define ON(name) avx512_##name
#define LANES 16
#include "vectors.h"

INLINE TARGET Lanes avx512_load_halves(const uint8_t *at) {
    return (Lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)at));
}

#include "floats.h"
#include "attention.h"
#undef ON
#undef LANES

static int has_avx512_vnni(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("fma");
}
#endif
