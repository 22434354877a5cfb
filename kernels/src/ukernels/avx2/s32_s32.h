#include "../vectors_256.h"

#define STEP(sum, a, b) _mm256_add_epi32(sum, _mm256_mullo_epi32(a, b))
#include "../vector_tile.h"

VECTOR_UKERNEL(avx2, s32_s32, OUIGEMM_E_S32, OUIGEMM_E_S32, 1)
