#include "../stream.h"

STREAM(avx512, f32_f32, "vfmadd231ps zmm", 32, "vfmadd231ps %%zmm14, %%zmm15, %%zmm\\r")
STREAM(avx512, s16_s32, "vpmaddwd, vpaddd zmm", 64,
       "vpmaddwd %%zmm14, %%zmm15, %%zmm13\n\tvpaddd %%zmm13, %%zmm\\r, %%zmm\\r")
STREAM(avx512, s32_s32, "vpmulld, vpaddd zmm", 32,
       "vpmulld %%zmm14, %%zmm15, %%zmm13\n\tvpaddd %%zmm13, %%zmm\\r, %%zmm\\r")
