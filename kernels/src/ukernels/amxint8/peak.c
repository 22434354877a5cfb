#include "../tile_stream.h"

TILE_STREAM(amxint8, u8s8_s32, tdpbusd, 64)
TILE_STREAM(amxint8, s8s8_s32, tdpbssd, 64)
