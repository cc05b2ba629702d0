/* What every processor can do. */
#define TARGET
#define ON(name) base_##name
#define LANES 4
#include "vectors.h"

INLINE Lanes base_load_halves(const uint8_t *at) {
    Lanes x = {0};
    for (int i = 0; i < LANES; i++) x[i] = load_half(at + 2 * i);
    return x;
}

INLINE void base_save_halves(uint8_t *at, Lanes x) {
    for (int i = 0; i < LANES; i++) {
        uint16_t half = float_to_half(x[i]);
        memcpy(at + 2 * i, &half, 2);
    }
}

#include "floats.h"
#include "store.h"
#include "attention.h"
#undef ON
#undef LANES
