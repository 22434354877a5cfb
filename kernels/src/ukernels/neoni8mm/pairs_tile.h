/* The micro-kernel of ARM's matrix instructions: one of them multiplies two rows by two columns over eight
   steps of k. A vector holds eight steps of a row and below them those of the next; B is packed like that,
   and of A, whatever its strides, both halves are loaded. The including file defines MR, NR, LOAD_PAIR,
   OPERAND and STEP. */
#include "ouigemm/ukernel.h"

#include <arm_neon.h>

_Static_assert(MR % 2 == 0 && NR % 2 == 0 && NR <= 64 && MR <= 64, "a tile is whole pairs, and at most 64 x 64");

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* Two rows of C hold the corners of a 2 x 2 block side by side. */
static inline void store(const ouigemm_tile_call *t, int i, int j, int32x4_t block)
{
    for (int r = 0; r < 2; r++) {
        int32_t *c = (int32_t *)((char *)t->c + (2 * i + r) * t->c_row) + 2 * j;
        int32x2_t row = r ? vget_high_s32(block) : vget_low_s32(block);
        vst1_s32(c, t->accumulate ? vadd_s32(vld1_s32(c), row) : row);
    }
}

static void run(const ouigemm_tile_call *t)
{
    int32x4_t sums[MR / 2][NR / 2];
    const char *a = t->a, *b = t->b;

    UNROLL for (int i = 0; i < MR / 2; i++)
        UNROLL for (int j = 0; j < NR / 2; j++)
            sums[i][j] = vdupq_n_s32(0);

    for (size_t g = 0; g < t->groups; g++, a += t->a_group, b += t->b_group) {
        int8x16_t columns[NR / 2];
        UNROLL for (int j = 0; j < NR / 2; j++)
            columns[j] = vld1q_s8((const int8_t *)(b + 16 * j));
        UNROLL for (int i = 0; i < MR / 2; i++) {
            OPERAND rows = LOAD_PAIR(a + 2 * i * t->a_row, a + (2 * i + 1) * t->a_row);
            UNROLL for (int j = 0; j < NR / 2; j++)
                sums[i][j] = STEP(sums[i][j], rows, columns[j]);
        }
    }

    UNROLL for (int i = 0; i < MR / 2; i++)
        UNROLL for (int j = 0; j < NR / 2; j++)
            store(t, i, j, sums[i][j]);
}

#define PAIRS_UKERNEL(isa, types, a_element)                                                           \
    const ouigemm_ukernel OUIGEMM_UKERNEL_SYMBOL(isa, types, MR, NR) = {                               \
        .name = OUIGEMM_UKERNEL_NAME(isa, types, MR, NR),                                              \
        .a = a_element,                                                                                \
        .b = OUIGEMM_E_S8,                                                                             \
        .mr = MR,                                                                                      \
        .nr = NR,                                                                                      \
        .kr = 8,                                                                                       \
        .ka = 8,                                                                                       \
        .op_m = 2,                                                                                     \
        .op_n = 2,                                                                                     \
        .in_flight = 8,                                                                                \
        .run = run,                                                                                    \
    };
