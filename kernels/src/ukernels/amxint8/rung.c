/* A matrix engine for 8-bit products. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/amxint8/s8s8_s32_family.h"
#include "ukernels/amxint8/u8s8_s32_family.h"

extern const ouigemm_stream ouigemm_amxint8_u8s8_s32_stream, ouigemm_amxint8_s8s8_s32_stream;

const ouigemm_rung ouigemm_rung_amxint8 = {
    .name = "amxint8",
    .needs = CPU_TILES | CPU_AMX_INT8,
    .kernels = {[OUIGEMM_U8S8] = u8s8_s32, [OUIGEMM_S8S8] = s8s8_s32},
    .streams = {
        [OUIGEMM_U8S8] = &ouigemm_amxint8_u8s8_s32_stream,
        [OUIGEMM_S8S8] = &ouigemm_amxint8_s8s8_s32_stream,
    },
};
