/* Kernels in plain C: one step of k at a time, for any CPU. */
#include "ouigemm/ukernel.h"

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
