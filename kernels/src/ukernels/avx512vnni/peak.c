#include "../stream.h"

STREAM(avx512vnni, s16_s32, "vpdpwssd zmm", 64, "vpdpwssd %%zmm14, %%zmm15, %%zmm\\r")
STREAM(avx512vnni, u8s8_s32, "vpdpbusd zmm", 128, "vpdpbusd %%zmm14, %%zmm15, %%zmm\\r")
