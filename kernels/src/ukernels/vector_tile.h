/* The micro-kernel of every vector instruction set: per group, one vector of B per LANES columns, one
   4-byte piece of A per row, repeated in all lanes, and one instruction for each pair of them.

   A type differs from another only in what that instruction does with the 4 bytes of a lane: one f32
   product, two 16-bit ones or four 8-bit ones. An instruction set defines, before it includes this:

     VECTOR, LANES          a vector of 4-byte accumulators
     ZERO()                 all lanes zero
     LOAD(p), STORE(p, x)   from and to any address
     REPEAT(p)              the 4 bytes at p in all lanes
     ADD(x, y)              accumulators
     STEP(sum, a, b)        sum + a * b
   and the file of a kernel defines MR and NR. */
#include "ouigemm/ukernel.h"

#define COLUMNS (NR / LANES)
_Static_assert(NR % LANES == 0 && NR <= 64 && MR <= 64, "a tile is whole vectors wide, and at most 64 x 64");

/* A loop left rolled would put the accumulators into memory. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

static inline __attribute__((always_inline)) void tile(const ouigemm_tile_call *t, ptrdiff_t a_row,
                                                       ptrdiff_t a_group)
{
    VECTOR sums[MR][COLUMNS];
    const char *a = t->a, *b = t->b;

    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < COLUMNS; v++)
            sums[i][v] = t->start ? LOAD(t->start + v * LANES) : ZERO();

    for (size_t g = 0; g < t->groups; g++, a += a_group, b += NR * 4) {
        VECTOR columns[COLUMNS];
        UNROLL for (int v = 0; v < COLUMNS; v++)
            columns[v] = LOAD(b + v * LANES * 4);
        UNROLL for (int i = 0; i < MR; i++) {
            VECTOR row = REPEAT(a + i * a_row);
            UNROLL for (int v = 0; v < COLUMNS; v++)
                sums[i][v] = STEP(sums[i][v], row, columns[v]);
        }
    }

    UNROLL for (int i = 0; i < MR; i++) {
        char *c = (char *)t->c + i * t->c_row;
        UNROLL for (int v = 0; v < COLUMNS; v++) {
            void *to = c + v * LANES * 4;
            STORE(to, t->accumulate ? ADD(LOAD(to), sums[i][v]) : sums[i][v]);
        }
    }
}

/* Packed panels have constant strides, which cost no registers and no additions. */
static void run(const ouigemm_tile_call *t)
{
    if (t->a_row == 4 && t->a_group == MR * 4)
        tile(t, 4, MR * 4);
    else
        tile(t, t->a_row, t->a_group);
}

#define VECTOR_UKERNEL(isa, types, a_element, b_element, group)                                        \
    const ouigemm_ukernel OUIGEMM_UKERNEL_SYMBOL(isa, types, MR, NR) = {                               \
        .name = OUIGEMM_UKERNEL_NAME(isa, types, MR, NR),                                              \
        .a = a_element,                                                                                \
        .b = b_element,                                                                                \
        .mr = MR,                                                                                      \
        .nr = NR,                                                                                      \
        .kr = group,                                                                                   \
        .ka = group,                                                                                   \
        .op_m = 1,                                                                                     \
        .op_n = LANES,                                                                                 \
        .in_flight = 8,                                                                                \
        .run = run,                                                                                    \
    };
