/* The micro-kernel of RVV 1.0: sixteen columns in a group of four vector registers, which is what the
   smallest permitted registers (128 bits) hold; longer ones hold it, too. Vectors of unknown length cannot
   be elements of an array: hence the rows by name. The including file defines MR (at most 6) and

     SUMS, COLUMNS         types of sixteen sums and of sixteen elements of B
     SCALAR                type of an element of A
     ZERO(), LOAD_SUMS(p), STORE(p, x), ADD(x, y), LOAD_COLUMNS(p)
     STEP(sum, a, b)       sum + a * b, a being one number */
#include "ouigemm/ukernel.h"

#include <riscv_vector.h>

_Static_assert(NR == 16 && MR >= 1 && MR <= 6, "one group of registers wide, at most six rows");

#define ROWS_1(DO) DO(0)
#define ROWS_2(DO) ROWS_1(DO) DO(1)
#define ROWS_3(DO) ROWS_2(DO) DO(2)
#define ROWS_4(DO) ROWS_3(DO) DO(3)
#define ROWS_5(DO) ROWS_4(DO) DO(4)
#define ROWS_6(DO) ROWS_5(DO) DO(5)
#define EVERY_ROW_2(n, DO) ROWS_##n(DO)
#define EVERY_ROW_1(n, DO) EVERY_ROW_2(n, DO)
#define EVERY_ROW(DO) EVERY_ROW_1(MR, DO)

#define BEGIN_ROW(i) SUMS sums_##i = ZERO();
#define STEP_ROW(i) sums_##i = STEP(sums_##i, *(const SCALAR *)(a + (i) * t->a_row), columns);
#define STORE_ROW(i)                                                                                   \
    {                                                                                                  \
        char *c = (char *)t->c + (i) * t->c_row;                                                       \
        STORE(c, t->accumulate ? ADD(LOAD_SUMS(c), sums_##i) : sums_##i);                              \
    }

static void run(const ouigemm_tile_call *t)
{
    const char *a = t->a, *b = t->b;
    EVERY_ROW(BEGIN_ROW)
    for (size_t g = 0; g < t->groups; g++, a += t->a_group, b += t->b_group) {
        COLUMNS columns = LOAD_COLUMNS((const SCALAR *)b);
        EVERY_ROW(STEP_ROW)
    }
    EVERY_ROW(STORE_ROW)
}

#define ROWS_UKERNEL(types, element)                                                                   \
    const ouigemm_ukernel OUIGEMM_UKERNEL_SYMBOL(rvv, types, MR, NR) = {                               \
        .name = OUIGEMM_UKERNEL_NAME(rvv, types, MR, NR),                                              \
        .a = element,                                                                                  \
        .b = element,                                                                                  \
        .mr = MR,                                                                                      \
        .nr = NR,                                                                                      \
        .kr = 1,                                                                                       \
        .ka = 1,                                                                                       \
        .op_m = 1,                                                                                     \
        .op_n = 16,                                                                                    \
        .in_flight = 4,                                                                                \
        .run = run,                                                                                    \
    };
