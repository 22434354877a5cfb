/* One product as planned: what gemm.c decides and loops.c carries out. */
#ifndef OUIGEMM_PRODUCT_H
#define OUIGEMM_PRODUCT_H

#include "ouigemm/ukernel.h"

#include <stdatomic.h>

enum { MOST_RANGES = 64 };

typedef struct product {
    const ouigemm_call *call;
    const struct ouigemm_packed *weights;
    const ouigemm_ukernel *kernel;
    const ouigemm_rung *loops;  /* packs and stores */
    ouigemm_epilogue epilogue;
    int shifted;           /* A is packed as 8-bit numbers of the other sign */
    ouigemm_blocks blocks;
    size_t depth;          /* of A and B, or 0 where alpha = 0 makes them irrelevant */
    int one_step;          /* of loop pc */
    int direct;            /* whole tiles go straight to C */
    int makes_b;           /* block by block: packs it or, where it is packed in a narrower type, widens it; or */
    int b_in_place;        /* whole panels of B are read from B, and only what is left is packed */
    int in_strips;         /* of some rows of B */
    int streams_b;         /* from memory, past few panels of A */
    size_t in_place;       /* rows of A: whole panels of them are read from A */
    int windows_in_place;  /* so are panels of windows that share a line */
    int by_rows;           /* what is packed of A stays in rows */
    size_t pitch;          /* of those rows, in bytes */
    size_t splits, split;  /* ranges of columns, and the size of one */
    size_t ranges;         /* of pieces, one per thread */
    atomic_size_t next[MOST_RANGES];
    atomic_int out_of_memory;
} product;

/* Loops ic to ir, for pool_run(): one thread's share of the pieces, and then what others have left. */
void product_compute(void *job, int index);

#endif
