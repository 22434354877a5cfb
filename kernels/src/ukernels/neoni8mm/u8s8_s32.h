#include <arm_neon.h>

#define OPERAND uint8x16_t
#define LOAD_PAIR(x, y) vcombine_u8(vld1_u8((const uint8_t *)(x)), vld1_u8((const uint8_t *)(y)))
#define STEP(sum, a, b) vusmmlaq_s32(sum, a, b)
#include "pairs_tile.h"

PAIRS_UKERNEL(neoni8mm, u8s8_s32, OUIGEMM_E_U8)
