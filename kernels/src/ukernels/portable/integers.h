/* Whole numbers of type ELEMENT. Products and sums are taken without sign, where overflow is defined. */
#include "plain.h"

static void run(const ouigemm_tile_call *t)
{
    uint32_t sums[MR][NR] = {{0}};
    const char *a = t->a;
    const ELEMENT *b = t->b;
    for (size_t g = 0; g < t->groups; g++, a += t->a_group, b += NR)
        for (size_t i = 0; i < MR; i++)
            for (size_t j = 0; j < NR; j++)
                sums[i][j] += (uint32_t)*(const ELEMENT *)(a + (ptrdiff_t)i * t->a_row) * (uint32_t)b[j];
    for (size_t i = 0; i < MR; i++) {
        uint32_t *c = (uint32_t *)((char *)t->c + (ptrdiff_t)i * t->c_row);
        for (size_t j = 0; j < NR; j++)
            c[j] = t->accumulate ? c[j] + sums[i][j] : sums[i][j];
    }
}
