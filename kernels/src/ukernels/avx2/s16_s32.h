/* vpmaddwd: exact, where vpmaddubsw on 8-bit operands would saturate its 16-bit sums. */
#include "../vectors_256.h"

#define STEP(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#include "../vector_tile.h"

VECTOR_UKERNEL(avx2, s16_s32, OUIGEMM_E_S16, OUIGEMM_E_S16, 2)
