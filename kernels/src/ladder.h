/* The rungs of this build, best first, and the rules that pick a rung and a micro-kernel. */
#ifndef OUIGEMM_LADDER_H
#define OUIGEMM_LADDER_H

#include "ouigemm/ukernel.h"

/* The family for a type: of the rung itself, or of the next lower one that has any.
   NULL where the rung is absent on this machine. */
const ouigemm_ukernel *const *ladder_family(ouigemm_type type, int rung);

/* For 8-bit types the family of that rung that adds pairs in 16 bits; NULL where it has none. */
const ouigemm_ukernel *const *ladder_pairs(ouigemm_type type, int rung);

ouigemm_hamming_tile *ladder_hamming(int rung);

/* The rung that packs and stores for this one. */
const ouigemm_rung *ladder_loops(int rung);

/* The shape rule, in two steps, because weights are packed before the height m is known. */
const ouigemm_ukernel *ladder_pick_width(const ouigemm_ukernel *const *family, size_t n);
const ouigemm_ukernel *ladder_pick_height(const ouigemm_ukernel *const *family, size_t nr, size_t m);

/* For packed weights and many rows the kernel that wants B widened beforehand, if there is one; else the same kernel. */
const ouigemm_ukernel *ladder_pick_wide(const ouigemm_ukernel *kernel, size_t m);

#endif
