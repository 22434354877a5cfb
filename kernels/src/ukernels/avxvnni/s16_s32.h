#include "../vectors_256.h"

#define STEP(sum, a, b) _mm256_dpwssd_avx_epi32(sum, a, b)
#include "../vector_tile.h"

VECTOR_UKERNEL(avxvnni, s16_s32, OUIGEMM_E_S16, OUIGEMM_E_S16, 2)
