/* Dot products of four signed bytes (ARMv8.2): an unsigned A is packed as A - 128, and 128 times the column
   sums of B are added again. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/neondot/s8s8_s32_family.h"

const ouigemm_rung ouigemm_rung_neondot = {
    .name = "neondot",
    .needs = CPU_NEON | CPU_NEON_DOT,
    .kernels = {[OUIGEMM_U8S8] = s8s8_s32, [OUIGEMM_S8S8] = s8s8_s32},
};
