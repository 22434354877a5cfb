/* 256-bit vectors. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/avx2/f32_f32_family.h"
#include "ukernels/avx2/s16_s32_family.h"
#include "ukernels/avx2/s16s8_s32_family.h"
#include "ukernels/avx2/s32_s32_family.h"
#include "ukernels/avx2/u8s8_s32_family.h"

extern ouigemm_hamming_tile ouigemm_avx2_hamming_4x4;
extern ouigemm_pack_panels ouigemm_avx2_pack;
extern ouigemm_epilogue_store ouigemm_avx2_epilogue;
extern const ouigemm_stream ouigemm_avx2_f32_f32_stream, ouigemm_avx2_s16_s32_stream,
    ouigemm_avx2_s32_s32_stream, ouigemm_avx2_u8s8_s32_stream;

const ouigemm_rung ouigemm_rung_avx2 = {
    .name = "avx2",
    .needs = CPU_YMM | CPU_AVX2,
    .kernels = {
        [OUIGEMM_F32] = f32_f32,
        [OUIGEMM_S16] = s16_s32,
        [OUIGEMM_S32] = s32_s32,
        [OUIGEMM_U8S8] = s16s8_s32,
        [OUIGEMM_S8S8] = s16s8_s32,
    },
    .pairs = u8s8_s32,
    .streams = {
        [OUIGEMM_F32] = &ouigemm_avx2_f32_f32_stream,
        [OUIGEMM_S16] = &ouigemm_avx2_s16_s32_stream,
        [OUIGEMM_S32] = &ouigemm_avx2_s32_s32_stream,
        [OUIGEMM_U8S8] = &ouigemm_avx2_u8s8_s32_stream,
        [OUIGEMM_S8S8] = &ouigemm_avx2_u8s8_s32_stream,
    },
    .hamming = ouigemm_avx2_hamming_4x4,
    .pack = ouigemm_avx2_pack,
    .epilogue = ouigemm_avx2_epilogue,
};
