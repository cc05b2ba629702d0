/* Recorded calls of the functions in entry.c, played by one call: between the products of a small model, Python takes as
 * long as they do. tape.py records.
 */
enum What { MATMUL, NORM, ROPE, SWIGLU, STORE, ATTEND, ADD };

/* `n` and `at` are the numbers and addresses that the function takes, in its order. Positions are those of a text at the
 * beginning of the pass, and an offset. */
typedef struct {
    int64_t what, n[4], text, offset;
    double eps;
    void *at[3];
} Step;

static int play_step(int isa, const Step *s, int64_t position, int64_t worth) {
    const int64_t *n = s->n;
    void *const *at = s->at;
    switch (s->what) {
    case MATMUL: return fourbit_matmul(isa, (int)n[0], (int)n[1], at[0], at[1], n[2], at[2]);
    case NORM: return fourbit_rms_norm(isa, at[0], n[0], n[1], at[1], (float)s->eps, at[2]), 0;
    case ROPE: return fourbit_rope(isa, at[0], n[0], n[1], n[2], at[1], at[2], (int)n[3]), 0;
    case SWIGLU: return fourbit_swiglu(isa, at[0], at[1], n[0], at[2]), 0;
    case STORE: return fourbit_store(isa, at[0], position, n[0], at[1], at[2]), 0;
    case ADD: return fourbit_add(at[0], n[0], n[1], at[1], n[2]), 0;
    default: return fourbit_attend(isa, n[0], worth, at[0], n[1], n[2], at[1], position, at[2]); /* ATTEND */
    }
}

EXPORT int fourbit_play(int isa, const Step *steps, int64_t count, const int64_t *positions, int64_t worth) {
    int status = 0;
    for (const Step *s = steps; !status && s < steps + count; s++)
        status = play_step(isa, s, positions[s->text] + s->offset, worth);
    return status;
}
