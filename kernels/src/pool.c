#include "pool.h"

#include <pthread.h>
#include <stdatomic.h>

/* A thread that waits looks this often, some tens of microseconds, before it sleeps: to be woken takes as long
   as a small product. */
enum { MOST_WORKERS = 255, LOOKS = 5000 };

static struct pool {
    pthread_mutex_t owner;  /* held by the product that has the pool */
    pthread_mutex_t lock;   /* guards all below */
    pthread_cond_t begin, end;
    int workers;            /* threads that exist */
    atomic_int wanted;      /* workers that still have to take up the present job */
    atomic_int busy;        /* workers that have not finished it */
    void (*work)(void *, int);
    void *job;
} pool = {
    .owner = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .begin = PTHREAD_COND_INITIALIZER,
    .end = PTHREAD_COND_INITIALIZER,
};
static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The child has none of the workers, and the locks may have been held by threads that it lacks. */
static void child_after_fork(void)
{
    pool = (struct pool){
        .owner = PTHREAD_MUTEX_INITIALIZER,
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .begin = PTHREAD_COND_INITIALIZER,
        .end = PTHREAD_COND_INITIALIZER,
    };
}

static void watch_forks(void)
{
    pthread_atfork(NULL, NULL, child_after_fork);
}

static void pause_core(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void *worker(void *unused)
{
    (void)unused;
    for (;;) {
        for (int i = 0; i < LOOKS && pool.wanted == 0; i++)
            pause_core();
        pthread_mutex_lock(&pool.lock);
        while (pool.wanted == 0)
            pthread_cond_wait(&pool.begin, &pool.lock);
        int index = pool.wanted--;
        void (*work)(void *, int) = pool.work;
        void *job = pool.job;
        pthread_mutex_unlock(&pool.lock);
        work(job, index);
        pthread_mutex_lock(&pool.lock);
        if (--pool.busy == 0)
            pthread_cond_signal(&pool.end);
        pthread_mutex_unlock(&pool.lock);
    }
    return NULL;
}

/* Fewer workers than asked for, where the system gives no more threads, only take longer. */
static void start_workers(int count)
{
    pthread_attr_t detached;
    pthread_attr_init(&detached);
    pthread_attr_setdetachstate(&detached, PTHREAD_CREATE_DETACHED);
    pthread_t thread;
    while (pool.workers < count && pthread_create(&thread, &detached, worker, NULL) == 0)
        pool.workers++;
    pthread_attr_destroy(&detached);
}

static void run_with_workers(int helpers, void (*work)(void *, int), void *job)
{
    pthread_mutex_lock(&pool.lock);
    start_workers(helpers < MOST_WORKERS ? helpers : MOST_WORKERS);
    pool.work = work;
    pool.job = job;
    pool.wanted = pool.busy = helpers < pool.workers ? helpers : pool.workers;
    pthread_cond_broadcast(&pool.begin);
    pthread_mutex_unlock(&pool.lock);

    work(job, 0);

    pthread_mutex_lock(&pool.lock);
    pool.busy -= pool.wanted; /* what is done by now needs no late comers */
    pool.wanted = 0;
    pthread_mutex_unlock(&pool.lock);
    for (int i = 0; i < LOOKS && pool.busy > 0; i++)
        pause_core();
    pthread_mutex_lock(&pool.lock);
    while (pool.busy > 0)
        pthread_cond_wait(&pool.end, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void pool_run(int threads, void (*work)(void *, int), void *job)
{
    pthread_once(&once, watch_forks);
    if (threads > 1 && pthread_mutex_trylock(&pool.owner) == 0) {
        run_with_workers(threads - 1, work, job);
        pthread_mutex_unlock(&pool.owner);
    } else {
        work(job, 0);
    }
}
