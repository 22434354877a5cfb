/* Plain C. */
#include "ouigemm/ukernel.h"
#include "ukernels/portable/f32_f32_family.h"
#include "ukernels/portable/s16_s32_family.h"
#include "ukernels/portable/s32_s32_family.h"

extern ouigemm_hamming_tile ouigemm_portable_hamming_4x4;
extern ouigemm_pack_panels ouigemm_portable_pack;
extern ouigemm_epilogue_store ouigemm_portable_epilogue;

const ouigemm_rung ouigemm_rung_portable = {
    .name = "portable",
    .kernels = {[OUIGEMM_F32] = f32_f32, [OUIGEMM_S16] = s16_s32, [OUIGEMM_S32] = s32_s32},
    .hamming = ouigemm_portable_hamming_4x4,
    .pack = ouigemm_portable_pack,
    .epilogue = ouigemm_portable_epilogue,
};
