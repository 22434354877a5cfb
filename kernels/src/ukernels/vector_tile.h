/* The micro-kernel of every vector instruction set: per group, one vector of B per LANES columns, one
   4-byte piece of A per row, repeated in all lanes, and one instruction for each pair of them.

   A type differs from another only in what that instruction does with the 4 bytes of a lane: one f32
   product, two 16-bit ones or four 8-bit ones. An instruction set defines, before it includes this:

     VECTOR, LANES          a vector of 4-byte accumulators
     ZERO()                 all lanes zero
     LOAD(p), STORE(p, x)   from and to any address
     REPEAT(p)              the 4 bytes at p in all lanes
     COLUMNS_OF_B(p)        LANES columns of B, of COLUMN_BYTES each, where they are not 4 bytes to be loaded
     ADD(x, y)              accumulators
     STEP(sum, a, b)        sum + a * b
   and the file of a kernel defines MR and NR. */
#include "ouigemm/ukernel.h"

/* What comes next is fetched on x86 only, where that was measured. */
#if defined(__x86_64__)
#define FETCHES(t) ((t)->ahead_step > 0)
#else
#define FETCHES(t) 0
#endif

#ifndef COLUMNS_OF_B
#define COLUMNS_OF_B(p) LOAD(p)
#define COLUMN_BYTES 4
#endif

#define COLUMNS (NR / LANES)
#define NEEDED (MR * COLUMNS + COLUMNS + 1)
#if defined(__x86_64__) && !defined(__AVX512F__)
#define REGISTERS 16
#else
#define REGISTERS 32
#endif
_Static_assert(NR % LANES == 0 && NR <= 64 && MR <= 64, "a tile is whole vectors wide, and at most 64 x 64");

/* A loop left rolled would put the accumulators into memory. */
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

static inline __attribute__((always_inline)) void tile(const ouigemm_tile_call *t, int fetches)
{
    VECTOR sums[MR][COLUMNS];
    const char *a = t->a, *b = t->b;
    uintptr_t ahead = t->ahead;
    const ptrdiff_t a_row = t->a_row, a_group = t->a_group, b_group = t->b_group;
    const size_t groups = t->groups, ahead_step = t->ahead_step;
    const int accumulate = t->accumulate;

    UNROLL for (int i = 0; i < MR; i++)
        UNROLL for (int v = 0; v < COLUMNS; v++)
            sums[i][v] = t->start ? LOAD(t->start + v * LANES) : ZERO();

    for (size_t g = 0; g < groups; g++, a += a_group, b += b_group, ahead += ahead_step) {
        if (fetches) {
            __builtin_prefetch((const void *)ahead, 0, 2);
            __builtin_prefetch((const void *)(ahead + 64), 0, 2);
        }
        VECTOR columns[COLUMNS];
        UNROLL for (int v = 0; v < COLUMNS; v++)
            columns[v] = COLUMNS_OF_B(b + v * LANES * COLUMN_BYTES);
        UNROLL for (int i = 0; i < MR; i++) {
            VECTOR row = REPEAT(a + i * a_row);
            UNROLL for (int v = 0; v < COLUMNS; v++)
                sums[i][v] = STEP(sums[i][v], row, columns[v]);
        }
    }

    char *c = t->c;
    const ptrdiff_t c_row = t->c_row;
    UNROLL for (int i = 0; i < MR; i++, c += c_row)
        UNROLL for (int v = 0; v < COLUMNS; v++) {
            void *to = c + v * LANES * 4;
            STORE(to, accumulate ? ADD(LOAD(to), sums[i][v]) : sums[i][v]);
        }
}

static void run(const ouigemm_tile_call *t)
{
    if (FETCHES(t))
        tile(t, 1);
    else
        tile(t, 0);
}

#define VECTOR_UKERNEL(isa, types, a_element, b_element, group)                                        \
    WIDENING_UKERNEL(isa, types, a_element, b_element, group, NULL)
#define WIDENING_UKERNEL(isa, types, a_element, b_element, group, widened)                             \
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
        .spilled = NEEDED > REGISTERS ? NEEDED - REGISTERS : 0,                                        \
        .wide = widened,                                                                               \
        .run = run,                                                                                    \
    };
