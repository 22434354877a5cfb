#include "../vectors_256.h"

#define STEP(sum, a, b) _mm256_dpbusd_avx_epi32(sum, a, b)
#include "../vector_tile.h"

VECTOR_UKERNEL(avxvnni, u8s8_s32, OUIGEMM_E_U8, OUIGEMM_E_S8, 4)
