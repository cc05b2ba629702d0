/* The two forms of NEON, and floats, which are the same in both. */
#if defined(__aarch64__) || defined(_M_ARM64)
#include <arm_neon.h>
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(_WIN32)
#include <windows.h>
#endif

#include "isa.h"

#define TARGET
#define ON(name) neon_##name

INLINE int32x4_t neon_dot_16(int32x4_t sums, int8x16_t a, int8x16_t b) {
    int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(b)), high = vmull_high_s8(a, b);
    return vaddq_s32(sums, vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high))); /* lane i: bytes 4 i ... 4 i + 3, as SDOT */
}

#include "neon.h"
#define LANES 4
#include "vectors.h"

INLINE Lanes neon_load_halves(const uint8_t *at) {
    return (Lanes)vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(at)));
}

INLINE void neon_save_halves(uint8_t *at, Lanes x) { vst1_u8(at, vreinterpret_u8_f16(vcvt_f16_f32((float32x4_t)x))); }

#include "floats.h"
#include "store.h"
#include "attention.h"
#undef ON
#undef LANES
#undef TARGET

#ifdef __ARM_FEATURE_DOTPROD
#define TARGET
#else
#define TARGET __attribute__((target("arch=armv8.2-a+dotprod")))
#endif
#define ON(name) dotprod_##name
INLINE TARGET int32x4_t dotprod_dot_16(int32x4_t sums, int8x16_t a, int8x16_t b) { return vdotq_s32(sums, a, b); }
#include "neon.h"
#undef ON

static int has_dotprod(void) {
#if defined(__APPLE__)
    return 1; /* since the M1 */
#elif defined(_WIN32)
    return IsProcessorFeaturePresent(43); /* PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE */
#elif defined(__linux__)
    return (getauxval(AT_HWCAP) >> 20 & 1) != 0; /* HWCAP_ASIMDDP */
#else
    return 0;
#endif
}

static int always(void) { return 1; }

const Isa fourbit_neon = {"neon", always, neon_round, neon_rows, neon_tile, 4, FLOATS(neon, 4)};
const Isa fourbit_dotprod = {"neon-dotprod", has_dotprod, dotprod_round, dotprod_rows, dotprod_tile, 4, FLOATS(neon, 4)};
#endif
