#define INSTRUCTION tdpbusd
#include "../tile_block.h"

TILE_UKERNEL(amxint8, u8s8_s32, OUIGEMM_E_U8, OUIGEMM_E_S8, 4)
