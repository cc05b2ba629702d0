/* How fast this machine reads memory: sums over a block, in several orders, so that the best of them is the roof.
 *
 * `streams` places are read at once, 256 bytes at a time, with the widest loads that the compiler knows here. The sum is
 * returned, so no compiler may leave a load out.
 */
#include <stdint.h>
#include <string.h>

typedef uint64_t wide __attribute__((vector_size(64)));

#if defined(_WIN32)
__declspec(dllexport)
#endif
uint64_t read_block(const char *block, uint64_t bytes, int streams, int ahead) {
    uint64_t each = bytes / streams / 256 * 256;
    wide sum[4] = {{0}};
    for (uint64_t at = 0; at < each; at += 256) {
        for (int stream = 0; stream < streams; stream++) {
            const char *place = block + stream * each + at;
            if (ahead) {
                __builtin_prefetch(place + ahead);
                __builtin_prefetch(place + ahead + 64);
                __builtin_prefetch(place + ahead + 128);
                __builtin_prefetch(place + ahead + 192);
            }
            for (int i = 0; i < 4; i++) {
                wide line;
                memcpy(&line, place + 64 * i, 64);
                sum[i] ^= line;
            }
        }
    }
    wide all = sum[0] ^ sum[1] ^ sum[2] ^ sum[3];
    return all[0] ^ all[1] ^ all[2] ^ all[3] ^ all[4] ^ all[5] ^ all[6] ^ all[7];
}
