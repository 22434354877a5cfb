/* 256-bit vectors with dot products of four 8-bit and two 16-bit pairs. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/avxvnni/u8s8_s32_family.h"
#include "ukernels/avxvnni/s16_s32_family.h"

const ouigemm_rung ouigemm_rung_avxvnni = {
    .name = "avxvnni",
    .needs = CPU_YMM | CPU_AVX2 | CPU_AVX_VNNI,
    .kernels = {
        [OUIGEMM_S16] = s16_s32,
        [OUIGEMM_U8S8] = u8s8_s32,
        [OUIGEMM_S8S8] = u8s8_s32,
    },
};
