#include "../stream.h"

STREAM(avxvnni, s16_s32, "vpdpwssd ymm", 32, "%{vex%} vpdpwssd %%ymm14, %%ymm15, %%ymm\\r")
STREAM(avxvnni, u8s8_s32, "vpdpbusd ymm", 64, "%{vex%} vpdpbusd %%ymm14, %%ymm15, %%ymm\\r")
