#include "../vectors_512.h"

#define STEP(sum, a, b) _mm512_dpbusd_epi32(sum, a, b)
#include "../vector_tile.h"

VECTOR_UKERNEL(avx512vnni, u8s8_s32, OUIGEMM_E_U8, OUIGEMM_E_S8, 4)
