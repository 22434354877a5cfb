/* The whole of B in the panels of one micro-kernel family and width. Where A is u8 or s8, families of
   one rung share widths and panels, and weights packed for s8 serve u8 too. */
#ifndef OUIGEMM_WEIGHTS_H
#define OUIGEMM_WEIGHTS_H

#include "ouigemm/ukernel.h"

struct ouigemm_packed {
    ouigemm_type type;
    int rung;
    const ouigemm_ukernel *kernel;  /* any of the family with this width: B is the same for all */
    size_t n, k;
    size_t depth;         /* k, rounded up to the kernel's ka */
    size_t bytes;
    char *panels;         /* one after the other: all of the depth for nr columns each */
    int32_t *start;       /* -128 times the column sums, behind the panels; NULL if A is not shifted */
};

/* Fills in all but the memory; `bytes` says how much of it weights_fill() needs. What is packed for one product is
   widened by its packing, where it has to be. */
ouigemm_status weights_plan(struct ouigemm_packed *w, ouigemm_type type, int rung, size_t k, size_t n, int for_once);
void weights_fill(struct ouigemm_packed *w, const ouigemm_matrix *b, void *memory, int threads);

/* A part of B: columns from j on, whole panels unless they are the last, and `steps` of the padded depth
   from step p on, whole groups. */
typedef struct weights_part {
    size_t j, columns, p, steps;
} weights_part;

/* Packs a part into panels of its own; `start`, unless it is NULL, gets what these steps add to it. */
void weights_pack(const struct ouigemm_packed *w, const ouigemm_matrix *b, const weights_part *part,
                  char *panels, int32_t *start);
int weights_shifted(const struct ouigemm_packed *w);

ouigemm_element element_of_a(ouigemm_type type);
ouigemm_element element_of_b(ouigemm_type type);

#endif
