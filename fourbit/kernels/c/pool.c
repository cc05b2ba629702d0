/* Threads that wait in the kernel, not in a loop: an idle pool costs nothing, and a busy neighbor is not slowed down.
 *
 * Each thread of a region has a share of the chunks, one behind the other, so that it reads memory in one stream. When its
 * own are gone it takes the next ones of others, so a thread that the system holds back delays the region by one chunk at
 * most. The caller works too, and does not wait for a thread that has not woken up by the time the chunks are gone. Threads
 * start when they are first needed, in each process for itself: a child made by fork()
 * has none of its parent's, and starts with an empty pool.
 */
#include "pool.h"

enum { MOST_THREADS = 256 };

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
#else
#include <pthread.h>
#include <signal.h>
typedef pthread_mutex_t Lock;
typedef pthread_cond_t Signal;
#define LOCK_INIT PTHREAD_MUTEX_INITIALIZER
#define SIGNAL_INIT PTHREAD_COND_INITIALIZER
static void lock(Lock *l) { pthread_mutex_lock(l); }
static int try_lock(Lock *l) { return pthread_mutex_trylock(l) == 0; }
static void unlock(Lock *l) { pthread_mutex_unlock(l); }
static void wait_for(Signal *s, Lock *l) { pthread_cond_wait(s, l); }
static void wake_one(Signal *s) { pthread_cond_signal(s); }
#endif

/* Chunks next ... end - 1 are still to be taken. A cache line each: neighbors would slow each other down. */
typedef struct {
    int64_t next, end, padding[6];
} Share;

typedef struct {
    Lock busy; /* held by the one caller that has a region; others work alone meanwhile */
    Lock lock; /* guards what follows */
    Signal work, done;
    int alive;          /* threads that have been started */
    uint64_t number;    /* of the region: a thread enters each once */
    int seats, entered; /* threads that may still enter; the number that the next one gets */
    int inside;         /* threads that are working */
    Task task;
    void *context;
    int parts;
} Pool;

static Share shares[MOST_THREADS];

static const Pool EMPTY = {.busy = LOCK_INIT, .lock = LOCK_INIT, .work = SIGNAL_INIT, .done = SIGNAL_INIT};
static Pool pool = {.busy = LOCK_INIT, .lock = LOCK_INIT, .work = SIGNAL_INIT, .done = SIGNAL_INIT};

static void take_chunks(Task task, void *context, int parts, int worker) {
    for (int i = 0; i < parts; i++) {
        Share *share = shares + (worker + i) % parts;
        for (int64_t c; (c = __atomic_fetch_add(&share->next, 1, __ATOMIC_RELAXED)) < share->end;) task(context, c, worker);
    }
}

static void serve(void) {
    uint64_t seen = 0;
    lock(&pool.lock);
    for (;;) {
        while (!pool.seats || pool.number == seen) wait_for(&pool.work, &pool.lock);
        seen = pool.number;
        pool.seats--;
        pool.inside++;
        int worker = ++pool.entered;
        Task task = pool.task;
        void *context = pool.context;
        int parts = pool.parts;
        unlock(&pool.lock);
        take_chunks(task, context, parts, worker);
        lock(&pool.lock);
        if (--pool.inside == 0) wake_one(&pool.done);
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
    lock(&pool.lock);
    const int parts = (int)smaller(helpers, pool.alive) + 1;
    for (int i = 0; i < parts; i++) shares[i].next = chunks * i / parts, shares[i].end = chunks * (i + 1) / parts;
    pool.task = task, pool.context = context, pool.parts = parts;
    pool.number++, pool.entered = 0, pool.seats = parts - 1;
    for (int i = 0; i < pool.seats; i++) wake_one(&pool.work);
    unlock(&pool.lock);
    take_chunks(task, context, parts, 0);
    lock(&pool.lock);
    pool.seats = 0; /* nobody enters any more */
    while (pool.inside) wait_for(&pool.done, &pool.lock);
    unlock(&pool.lock);
    unlock(&pool.busy);
}
