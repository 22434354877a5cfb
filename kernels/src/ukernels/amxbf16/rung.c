/* A matrix engine for bf16 products. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/amxbf16/bf16_f32_family.h"

const ouigemm_rung ouigemm_rung_amxbf16 = {
    .name = "amxbf16",
    .needs = CPU_TILES | CPU_AMX_BF16,
    .kernels = {[OUIGEMM_BF16] = bf16_f32},
};
