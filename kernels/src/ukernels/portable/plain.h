/* The micro-kernel in plain C, one step of k at a time, for any CPU. The including file defines ELEMENT, and SUM,
   in which products and sums are taken: for whole numbers one without sign, where overflow is defined. */
#include "ouigemm/ukernel.h"

static void run(const ouigemm_tile_call *t)
{
    SUM sums[MR][NR] = {{0}};
    const char *a = t->a, *b = t->b;
    for (size_t g = 0; g < t->groups; g++, a += t->a_group, b += t->b_group)
        for (size_t i = 0; i < MR; i++)
            for (size_t j = 0; j < NR; j++)
                sums[i][j] += (SUM)*(const ELEMENT *)(a + (ptrdiff_t)i * t->a_row) * (SUM)((const ELEMENT *)b)[j];
    for (size_t i = 0; i < MR; i++) {
        SUM *c = (SUM *)((char *)t->c + (ptrdiff_t)i * t->c_row);
        for (size_t j = 0; j < NR; j++)
            c[j] = t->accumulate ? c[j] + sums[i][j] : sums[i][j];
    }
}

/* B columns of a group are one element, not 4 bytes: no instruction sums them up here. */
#define PORTABLE_UKERNEL(types, element)                                                               \
    const ouigemm_ukernel OUIGEMM_UKERNEL_SYMBOL(portable, types, MR, NR) = {                          \
        .name = OUIGEMM_UKERNEL_NAME(portable, types, MR, NR),                                         \
        .a = element,                                                                                  \
        .b = element,                                                                                  \
        .mr = MR,                                                                                      \
        .nr = NR,                                                                                      \
        .kr = 1,                                                                                       \
        .ka = 1,                                                                                       \
        .op_m = 1,                                                                                     \
        .op_n = 1,                                                                                     \
        .in_flight = 1,                                                                                \
        .run = run,                                                                                    \
    };
