/* Threads that wait in the kernel, not in a loop: an idle pool costs nothing, and a busy neighbor is not slowed down.
 *
 * Each thread of a region has a share of the chunks, one behind the other, so that it reads memory in one stream. When its
 * own are gone it takes the next ones of others, so a thread that the system holds back delays the region by one chunk at
 * most. The caller works too, and does not wait for a thread that has not woken up by the time the chunks are gone.
 *
 * A model's regions follow each other within microseconds, and waking a thread takes longer than that: 50 to 100 where
 * the machine is a virtual one. So who has nothing to do looks for LOOK nanoseconds before it sleeps, and no longer: a
 * thread that was taken off its core costs the others that much, not a time slice.
 *
 * Threads start when they are first needed, in each process for itself: a child made by fork() has none of its parent's,
 * and starts with an empty pool.
 */
#include "pool.h"

enum { MOST_THREADS = 256, LOOK = 50000 };

#ifdef _WIN32
#include <windows.h>
typedef SRWLOCK Lock;
typedef CONDITION_VARIABLE Signal;
#define LOCK_INIT SRWLOCK_INIT
#define SIGNAL_INIT CONDITION_VARIABLE_INIT
static void lock(Lock *l) { AcquireSRWLockExclusive(l); }
static int try_lock(Lock *l) { return TryAcquireSRWLockExclusive(l); }
static void unlock(Lock *l) { ReleaseSRWLockExclusive(l); }
static void wait_for(Signal *s, Lock *l) { SleepConditionVariableSRW(s, l, INFINITE, 0); }
static void wake_one(Signal *s) { WakeConditionVariable(s); }
static int64_t nanoseconds(void) {
    LARGE_INTEGER count, each_second;
    QueryPerformanceCounter(&count), QueryPerformanceFrequency(&each_second);
    return (int64_t)(1e9 * (double)count.QuadPart / (double)each_second.QuadPart);
}
#else
#include <pthread.h>
#include <signal.h>
#include <time.h>
typedef pthread_mutex_t Lock;
typedef pthread_cond_t Signal;
#define LOCK_INIT PTHREAD_MUTEX_INITIALIZER
#define SIGNAL_INIT PTHREAD_COND_INITIALIZER
static void lock(Lock *l) { pthread_mutex_lock(l); }
static int try_lock(Lock *l) { return pthread_mutex_trylock(l) == 0; }
static void unlock(Lock *l) { pthread_mutex_unlock(l); }
static void wait_for(Signal *s, Lock *l) { pthread_cond_wait(s, l); }
static void wake_one(Signal *s) { pthread_cond_signal(s); }
static int64_t nanoseconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}
#endif

static void breathe(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb");
#endif
}

/* Chunks next ... end - 1 are still to be taken. A cache line each: neighbors would slow each other down. */
typedef struct {
    int64_t next, end, padding[6];
} Share;

/* `state` says in one word, so that it changes as a whole: number of the region << 32 | seats << 16 | threads inside.
 * A thread enters a region by taking a seat. What describes the region changes only while there are no seats and nobody
 * is inside. */
typedef struct {
    Lock busy; /* held by the one caller that has a region; others work alone meanwhile */
    int alive; /* threads that have been started */
    uint64_t state;
    Task task;
    void *context;
    int parts;
    Lock lock; /* for going to sleep and waking up */
    Signal work, done;
    int sleeping, caller_sleeps;
} Pool;

enum { INSIDE = 1, SEAT = 1 << 16, COUNT = SEAT - 1 };
#define REGION ((uint64_t)1 << 32)

static Share shares[MOST_THREADS];

static const Pool EMPTY = {.busy = LOCK_INIT, .lock = LOCK_INIT, .work = SIGNAL_INIT, .done = SIGNAL_INIT};
static Pool pool = {.busy = LOCK_INIT, .lock = LOCK_INIT, .work = SIGNAL_INIT, .done = SIGNAL_INIT};

static uint64_t now(void) { return __atomic_load_n(&pool.state, __ATOMIC_SEQ_CST); }
static int seats(uint64_t state) { return (int)(state / SEAT & COUNT); }
static int inside(uint64_t state) { return (int)(state & COUNT); }

/* The two things that are waited for: a seat in another region than the last one, and that everybody has left. */
static int has_seat(uint64_t last) { return seats(now()) && now() / REGION != last; }
static int all_left(uint64_t unused) { return (void)unused, !inside(now()); }

static void await(int (*holds)(uint64_t), uint64_t what, int *sleepers, Signal *signal) {
    for (int64_t end = nanoseconds() + LOOK; nanoseconds() < end;) {
        for (int i = 0; i < 8; i++) {
            if (holds(what)) return;
            breathe();
        }
    }
    lock(&pool.lock);
    __atomic_add_fetch(sleepers, 1, __ATOMIC_SEQ_CST); /* before the last look: who changes the state looks here after it */
    while (!holds(what)) wait_for(signal, &pool.lock);
    __atomic_sub_fetch(sleepers, 1, __ATOMIC_SEQ_CST);
    unlock(&pool.lock);
}

static void wake(int *sleepers, int count, Signal *signal) {
    if (!__atomic_load_n(sleepers, __ATOMIC_SEQ_CST)) return;
    lock(&pool.lock);
    for (int i = 0; i < count; i++) wake_one(signal);
    unlock(&pool.lock);
}

static void take_chunks(Task task, void *context, int parts, int worker) {
    for (int i = 0; i < parts; i++) {
        Share *share = shares + (worker + i) % parts;
        for (int64_t c; (c = __atomic_fetch_add(&share->next, 1, __ATOMIC_RELAXED)) < share->end;) task(context, c, worker);
    }
}

/* Return the number that a thread gets in the region, from 1; 0 when another took the last seat. */
static int enter(uint64_t last) {
    uint64_t state = now();
    while (seats(state) && state / REGION != last)
        if (__atomic_compare_exchange_n(&pool.state, &state, state - SEAT + INSIDE, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
            return pool.parts - seats(state);
    return 0;
}

static void serve(void) {
    for (uint64_t last = 0;;) {
        await(has_seat, last, &pool.sleeping, &pool.work);
        int worker = enter(last);
        if (!worker) continue;
        last = now() / REGION; /* there is no next region while this thread is inside */
        take_chunks(pool.task, pool.context, pool.parts, worker);
        if (!inside(__atomic_sub_fetch(&pool.state, INSIDE, __ATOMIC_SEQ_CST))) wake(&pool.caller_sleeps, 1, &pool.done);
    }
}

#ifdef _WIN32
static DWORD WINAPI thread_main(LPVOID nothing) {
    (void)nothing;
    serve();
    return 0;
}
static int start_thread(void) {
    HANDLE thread = CreateThread(NULL, 0, thread_main, NULL, 0, NULL);
    return thread && CloseHandle(thread);
}
#else
static void forget_threads(void) { pool = EMPTY; }

static void *thread_main(void *nothing) {
    (void)nothing;
    serve();
    return NULL;
}

/* Signals are for the program's own threads: Ctrl-C must find Python's. */
static int start_thread(void) {
    static int registered;
    if (!registered) registered = pthread_atfork(NULL, NULL, forget_threads) == 0;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int started = registered && pthread_create(&thread, NULL, thread_main, NULL) == 0;
    if (started) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started;
}
#endif

void run_chunks(Task task, void *context, int64_t chunks, int threads) {
    int helpers = (int)smaller(smaller(threads, MOST_THREADS), chunks) - 1;
    if (helpers < 1 || !try_lock(&pool.busy)) {
        for (int64_t c = 0; c < chunks; c++) task(context, c, 0);
        return;
    }
    while (pool.alive < helpers && start_thread()) pool.alive++;
    const int parts = (int)smaller(helpers, pool.alive) + 1;
    for (int i = 0; i < parts; i++) shares[i].next = chunks * i / parts, shares[i].end = chunks * (i + 1) / parts;
    pool.task = task, pool.context = context, pool.parts = parts;
    const uint64_t number = now() / REGION + 1;
    __atomic_store_n(&pool.state, number * REGION + (uint64_t)(parts - 1) * SEAT, __ATOMIC_SEQ_CST);
    wake(&pool.sleeping, parts - 1, &pool.work);
    take_chunks(task, context, parts, 0);
    __atomic_and_fetch(&pool.state, ~((uint64_t)COUNT * SEAT), __ATOMIC_SEQ_CST); /* nobody enters any more */
    await(all_left, 0, &pool.caller_sleeps, &pool.done);
    unlock(&pool.busy);
}
