/* 512-bit vectors with dot products of two bf16 pairs.

   Intel's cores run vdpbf16ps at half the rate of FMA, which makes it no faster than f32 there: only
   on AMD's is the rung picked without being asked for. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/avx512bf16/bf16_f32_family.h"

extern const ouigemm_stream ouigemm_avx512bf16_bf16_f32_stream;

const ouigemm_rung ouigemm_rung_avx512bf16 = {
    .name = "avx512bf16",
    .needs = CPU_ZMM | CPU_AVX512 | CPU_AVX2 | CPU_AVX512_BF16,
    .auto_needs = CPU_AMD,
    .kernels = {[OUIGEMM_BF16] = bf16_f32},
    .streams = {[OUIGEMM_BF16] = &ouigemm_avx512bf16_bf16_f32_stream},
};
