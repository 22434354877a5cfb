/* RVV 1.0, registers of 128 bits or more. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/rvv/f32_f32_family.h"
#include "ukernels/rvv/s16_s32_family.h"
#include "ukernels/rvv/s32_s32_family.h"

const ouigemm_rung ouigemm_rung_rvv = {
    .name = "rvv",
    .needs = CPU_RVV,
    .kernels = {[OUIGEMM_F32] = f32_f32, [OUIGEMM_S16] = s16_s32, [OUIGEMM_S32] = s32_s32},
};
