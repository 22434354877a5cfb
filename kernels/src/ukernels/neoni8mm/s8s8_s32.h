#include <arm_neon.h>

#define OPERAND int8x16_t
#define LOAD_PAIR(x, y) vcombine_s8(vld1_s8((const int8_t *)(x)), vld1_s8((const int8_t *)(y)))
#define STEP(sum, a, b) vmmlaq_s32(sum, a, b)
#include "pairs_tile.h"

PAIRS_UKERNEL(neoni8mm, s8s8_s32, OUIGEMM_E_S8)
