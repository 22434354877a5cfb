/* 512-bit vectors. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"
#include "ukernels/avx512/f32_f32_family.h"
#include "ukernels/avx512/s16_s32_family.h"
#include "ukernels/avx512/s32_s32_family.h"

extern ouigemm_pack_panels ouigemm_avx512_pack;
extern ouigemm_epilogue_store ouigemm_avx512_epilogue;
extern const ouigemm_stream ouigemm_avx512_f32_f32_stream, ouigemm_avx512_s16_s32_stream,
    ouigemm_avx512_s32_s32_stream;

const ouigemm_rung ouigemm_rung_avx512 = {
    .name = "avx512",
    .needs = CPU_ZMM | CPU_AVX512 | CPU_AVX2,
    .kernels = {[OUIGEMM_F32] = f32_f32, [OUIGEMM_S16] = s16_s32, [OUIGEMM_S32] = s32_s32},
    .streams = {
        [OUIGEMM_F32] = &ouigemm_avx512_f32_f32_stream,
        [OUIGEMM_S16] = &ouigemm_avx512_s16_s32_stream,
        [OUIGEMM_S32] = &ouigemm_avx512_s32_s32_stream,
    },
    .pack = ouigemm_avx512_pack,
    .epilogue = ouigemm_avx512_epilogue,
};
