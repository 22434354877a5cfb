#ifndef OUIGEMM_BLOCKING_H
#define OUIGEMM_BLOCKING_H

#include "ouigemm/ukernel.h"

enum { FEWEST_ROWS = 64 };  /* of a block of A: what covers the way of B from beyond level 2 */

ouigemm_blocks blocking(const ouigemm_ukernel *kernel, size_t l2, size_t m, size_t n, size_t k);

/* The same for few rows of A, where some rows of B are read side by side. */
void strips_of_rows(ouigemm_blocks *blocks, const ouigemm_ukernel *kernel, size_t l2, int in_place);

#endif
