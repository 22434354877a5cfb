#include "plain.h"

static void run(const ouigemm_tile_call *t)
{
    float sums[MR][NR] = {{0}};
    const char *a = t->a;
    const float *b = t->b;
    for (size_t g = 0; g < t->groups; g++, a += t->a_group, b += NR)
        for (size_t i = 0; i < MR; i++)
            for (size_t j = 0; j < NR; j++)
                sums[i][j] += *(const float *)(a + (ptrdiff_t)i * t->a_row) * b[j];
    for (size_t i = 0; i < MR; i++) {
        float *c = (float *)((char *)t->c + (ptrdiff_t)i * t->c_row);
        for (size_t j = 0; j < NR; j++)
            c[j] = t->accumulate ? c[j] + sums[i][j] : sums[i][j];
    }
}

PORTABLE_UKERNEL(f32_f32, OUIGEMM_E_F32)
