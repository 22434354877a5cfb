#include "../integers_128.h"

#define STEP(sum, a, b) vmlaq_s32(sum, a, b)
#include "../vector_tile.h"

VECTOR_UKERNEL(neon, s32_s32, OUIGEMM_E_S32, OUIGEMM_E_S32, 1)
