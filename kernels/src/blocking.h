#ifndef OUIGEMM_BLOCKING_H
#define OUIGEMM_BLOCKING_H

#include "ouigemm/ukernel.h"

enum { FEWEST_ROWS = 64 };  /* of a block of A: what covers the way of B from beyond level 2 */

ouigemm_blocks blocking(const ouigemm_ukernel *kernel, size_t l2, size_t m, size_t n, size_t k);

/* The same for few rows of A, where some rows of B are read side by side. */
void strips_of_rows(ouigemm_blocks *blocks, const ouigemm_ukernel *kernel, size_t l2, size_t m, int in_place);

/* The same where every block of B is widened, or packed, just before it is needed. */
void blocks_widened_in_turn(ouigemm_blocks *blocks, const ouigemm_ukernel *kernel, size_t l2);
void blocks_packed_in_turn(ouigemm_blocks *blocks, const ouigemm_ukernel *kernel, size_t l2, size_t n, size_t k);

/* Of n columns of B those that are packed together, whole panels: its rows are read in pieces of 2 KB. */
size_t columns_at_once(const ouigemm_ukernel *kernel, size_t n);

#endif
