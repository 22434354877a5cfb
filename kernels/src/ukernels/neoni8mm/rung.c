/* Matrix instructions on 128-bit vectors (ARMv8.6): SMMLA and USMMLA. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/neoni8mm/s8s8_s32_family.h"
#include "ukernels/neoni8mm/u8s8_s32_family.h"

const ouigemm_rung ouigemm_rung_neoni8mm = {
    .name = "neoni8mm",
    .needs = CPU_NEON | CPU_NEON_I8MM,
    .kernels = {[OUIGEMM_U8S8] = u8s8_s32, [OUIGEMM_S8S8] = s8s8_s32},
};
