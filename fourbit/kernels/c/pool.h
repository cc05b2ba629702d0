/* A pool of threads that sleep until there is work. */
#ifndef FOURBIT_POOL_H
#define FOURBIT_POOL_H

#include "common.h"

/* One chunk of a parallel region. `worker` numbers the threads of the region from 0, for scratch memory of their own. */
typedef void (*Task)(void *context, int64_t chunk, int worker);

/* Run task(context, 0 .. chunks - 1, ...) on up to `threads` threads, of which the caller is one; return when all is
 * done. A chunk's result must not depend on who runs it: then results do not depend on the number of threads. */
void run_chunks(Task task, void *context, int64_t chunks, int threads);

#endif
