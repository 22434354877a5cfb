#include "../vectors_512.h"

#define STEP(sum, a, b) _mm512_dpwssd_epi32(sum, a, b)
#include "../vector_tile.h"

VECTOR_UKERNEL(avx512vnni, s16_s32, OUIGEMM_E_S16, OUIGEMM_E_S16, 2)
