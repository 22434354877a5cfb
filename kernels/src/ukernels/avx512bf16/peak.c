#include "../stream.h"

STREAM(avx512bf16, bf16_f32, "vdpbf16ps zmm", 64, "vdpbf16ps %%zmm14, %%zmm15, %%zmm\\r")
