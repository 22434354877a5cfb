#include "../vectors_512.h"

#define STEP(sum, a, b) _mm512_add_epi32(sum, _mm512_mullo_epi32(a, b))
#include "../vector_tile.h"

VECTOR_UKERNEL(avx512, s32_s32, OUIGEMM_E_S32, OUIGEMM_E_S32, 1)
