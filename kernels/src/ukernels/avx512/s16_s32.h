#include "../vectors_512.h"

#define STEP(sum, a, b) _mm512_add_epi32(sum, _mm512_madd_epi16(a, b))
#include "../vector_tile.h"

VECTOR_UKERNEL(avx512, s16_s32, OUIGEMM_E_S16, OUIGEMM_E_S16, 2)
