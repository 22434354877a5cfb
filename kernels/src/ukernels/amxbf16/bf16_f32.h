/* tdpbf16ps takes subnormal numbers for zero. */
#define INSTRUCTION tdpbf16ps
#include "../tile_block.h"

TILE_UKERNEL(amxbf16, bf16_f32, OUIGEMM_E_BF16, OUIGEMM_E_BF16, 2)
