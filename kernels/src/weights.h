/* The whole of B in the panels of one micro-kernel family and width. Where A is u8 or s8, families of
   one rung share widths and panels, and weights packed for s8 serve u8 too. */
#ifndef OUIGEMM_WEIGHTS_H
#define OUIGEMM_WEIGHTS_H

#include "ouigemm/ukernel.h"

typedef enum weights_use {
    ONE_PRODUCT,    /* packed by its threads, and widened at once, where a kernel would have to */
    MANY_PRODUCTS,
    MANY_IN_PAIRS   /* by the family that adds pairs in 16 bits: weights_fit_pairs() */
} weights_use;

struct ouigemm_packed {
    ouigemm_type type;
    int rung;
    weights_use use;
    const ouigemm_ukernel *kernel;  /* any of the family with this width: B is the same for all */
    size_t n, k;
    size_t depth;         /* k, rounded up to the kernel's ka */
    size_t bytes;
    char *panels;         /* one after the other: all of the depth for nr columns each */
    int32_t *start;       /* -128 times the column sums, behind the panels; NULL if A is not shifted */
};

/* Fills in all but the memory; `bytes` says how much of it weights_fill() needs. */
ouigemm_status weights_plan(struct ouigemm_packed *w, weights_use use, ouigemm_type type, int rung, size_t k, size_t n);
void weights_fill(struct ouigemm_packed *w, const ouigemm_matrix *b, void *memory, int threads);

/* A part of B: columns from j on, whole panels unless they are the last, and `steps` of the padded depth
   from step p on, whole groups. */
typedef struct weights_part {
    size_t j, columns, p, steps;
} weights_part;

/* Packs a part into panels of its own; `start`, unless it is NULL, gets what these steps add to it. */
void weights_pack(const struct ouigemm_packed *w, const ouigemm_matrix *b, const weights_part *part,
                  char *panels, int32_t *start);
/* The kernel for m rows of an A of this type. */
const ouigemm_ukernel *weights_kernel(const struct ouigemm_packed *w, ouigemm_type type, size_t m);

int weights_shifted(const struct ouigemm_packed *w);

ouigemm_element element_of_a(ouigemm_type type);
ouigemm_element element_of_b(ouigemm_type type);

#endif
