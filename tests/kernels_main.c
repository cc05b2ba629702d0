/* Runs the kernels on problems from a file: for processors other than this one, under an emulator.
 *
 * A problem: the kind of work (0 product, 1 attention), the number of the instruction set, and threads; then what
 * test_kernels_arm.py writes. Results are float32, one after the other.
 */
#include "library.c"

#include <stdio.h>

static void *read_bytes(FILE *file, int64_t count) {
    uint8_t *bytes = malloc((size_t)count + 1);
    if (fread(bytes, 1, (size_t)count, file) != (size_t)count) exit(2);
    return bytes;
}

static int product(FILE *in, FILE *out, int isa, int threads) {
    int64_t *n = read_bytes(in, 7 * 8); /* kind, rows, columns, row_bytes, group, groups, tokens */
    int64_t tokens = n[6], groups = n[1] * n[5];
    Matrix m = {n[0], n[1], n[2], n[3], n[4], n[5], NULL, NULL, NULL};
    m.data = read_bytes(in, m.rows * m.row_bytes);
    m.scale = read_bytes(in, 2 * groups);
    m.zero = read_bytes(in, groups);
    float *x = read_bytes(in, tokens * m.columns * 4), *result = malloc((size_t)(tokens * m.rows) * 4);
    const Matrix *matrices[] = {&m};
    float *outs[] = {result};
    int status = fourbit_matmul(isa, threads, 1, matrices, x, tokens, outs);
    fwrite(result, 4, (size_t)(tokens * m.rows), out);
    return status;
}

static int attention(FILE *in, FILE *out, int isa, int threads) {
    int64_t *n = read_bytes(in, 7 * 8); /* kind, kv_heads, capacity, width, row_bytes, heads, tokens */
    CacheLayer c = {n[0], n[1], n[2], n[3], n[4], NULL, NULL};
    int64_t heads = n[5], tokens = n[6], bytes = c.kv_heads * c.capacity * c.row_bytes;
    c.keys = read_bytes(in, bytes);
    c.values = read_bytes(in, bytes);
    float *q = read_bytes(in, tokens * heads * c.width * 4), *result = malloc((size_t)(tokens * heads * c.width) * 4);
    int status = fourbit_attend(isa, threads, 1, q, tokens, heads, &c, c.capacity - tokens, result);
    fwrite(result, 4, (size_t)(tokens * heads * c.width), out);
    return status;
}

int main(int count, char **arguments) {
    if (count == 2) return puts(fourbit_isa(atoi(arguments[1])) ? fourbit_isa(atoi(arguments[1])) : "") < 0;
    FILE *in = fopen(arguments[1], "rb"), *out = fopen(arguments[2], "wb");
    int64_t head[3];
    while (fread(head, 8, 3, in) == 3) {
        int status = (head[0] ? attention : product)(in, out, (int)head[1], (int)head[2]);
        if (status) return 1;
    }
    return fclose(out);
}
