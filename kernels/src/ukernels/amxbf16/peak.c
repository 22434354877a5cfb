#include "../tile_stream.h"

TILE_STREAM(amxbf16, bf16_f32, tdpbf16ps, 32)
