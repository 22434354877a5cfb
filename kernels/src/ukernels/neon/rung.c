/* 128-bit vectors of ARMv8. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/neon/f32_f32_family.h"
#include "ukernels/neon/s16_s32_family.h"
#include "ukernels/neon/s32_s32_family.h"

extern ouigemm_hamming_tile ouigemm_neon_hamming_4x4;

const ouigemm_rung ouigemm_rung_neon = {
    .name = "neon",
    .needs = CPU_NEON,
    .kernels = {[OUIGEMM_F32] = f32_f32, [OUIGEMM_S16] = s16_s32, [OUIGEMM_S32] = s32_s32},
    .hamming = ouigemm_neon_hamming_4x4,
};
