/* 256-bit vectors with dot products of four 8-bit and two 16-bit pairs. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/avxvnni/u8s8_s32_family.h"
#include "ukernels/avxvnni/s16_s32_family.h"

extern const ouigemm_stream ouigemm_avxvnni_s16_s32_stream, ouigemm_avxvnni_u8s8_s32_stream;

const ouigemm_rung ouigemm_rung_avxvnni = {
    .name = "avxvnni",
    .needs = CPU_YMM | CPU_AVX2 | CPU_AVX_VNNI,
    .kernels = {
        [OUIGEMM_S16] = s16_s32,
        [OUIGEMM_U8S8] = u8s8_s32,
        [OUIGEMM_S8S8] = u8s8_s32,
    },
    .streams = {
        [OUIGEMM_S16] = &ouigemm_avxvnni_s16_s32_stream,
        [OUIGEMM_U8S8] = &ouigemm_avxvnni_u8s8_s32_stream,
        [OUIGEMM_S8S8] = &ouigemm_avxvnni_u8s8_s32_stream,
    },
};
