#define INSTRUCTION tdpbssd
#include "../tile_block.h"

TILE_UKERNEL(amxint8, s8s8_s32, OUIGEMM_E_S8, OUIGEMM_E_S8, 4)
