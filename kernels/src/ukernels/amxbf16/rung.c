/* A matrix engine for bf16 products. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/amxbf16/bf16_f32_family.h"

extern const ouigemm_stream ouigemm_amxbf16_bf16_f32_stream;

const ouigemm_rung ouigemm_rung_amxbf16 = {
    .name = "amxbf16",
    .needs = CPU_TILES | CPU_AMX_BF16,
    .kernels = {[OUIGEMM_BF16] = bf16_f32},
    .streams = {[OUIGEMM_BF16] = &ouigemm_amxbf16_bf16_f32_stream},
};
