#include "../stream.h"

STREAM(avx2, f32_f32, "vfmadd231ps ymm", 16, "vfmadd231ps %%ymm14, %%ymm15, %%ymm\\r")
STREAM(avx2, s16_s32, "vpmaddwd, vpaddd ymm", 32,
       "vpmaddwd %%ymm14, %%ymm15, %%ymm13\n\tvpaddd %%ymm13, %%ymm\\r, %%ymm\\r")
STREAM(avx2, s32_s32, "vpmulld, vpaddd ymm", 16,
       "vpmulld %%ymm14, %%ymm15, %%ymm13\n\tvpaddd %%ymm13, %%ymm\\r, %%ymm\\r")
STREAM(avx2, u8s8_s32, "vpmaddubsw, vpmaddwd, vpaddd ymm", 64,
       "vpmaddubsw %%ymm14, %%ymm15, %%ymm13\n\tvpmaddwd %%ymm12, %%ymm13, %%ymm13\n\t"
       "vpaddd %%ymm13, %%ymm\\r, %%ymm\\r")
