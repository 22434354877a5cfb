/* A pool of threads that waits between products.

   One product at a time has the pool: a second one that comes meanwhile, from another thread of the
   program, runs on its own thread alone, with the same result. After fork() the child starts a pool
   of its own when it first needs one; a child born in the middle of a product is safe too. */
#ifndef OUIGEMM_POOL_H
#define OUIGEMM_POOL_H

/* Calls work(job, index) on up to `threads` threads at once, the caller's among them, and waits for all.
   The caller has index 0, and no index is given twice. */
void pool_run(int threads, void (*work)(void *, int), void *job);

#endif
