/* SDOT: four products of signed bytes, added without saturation. */
#include "../integers_128.h"

#define STEP(sum, a, b) vdotq_s32(sum, vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b))
#include "../vector_tile.h"

VECTOR_UKERNEL(neondot, s8s8_s32, OUIGEMM_E_S8, OUIGEMM_E_S8, 4)
