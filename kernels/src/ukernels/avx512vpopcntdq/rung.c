/* 512-bit vectors that count bits. */
#include "../../cpu.h"
#include "ouigemm/ukernel.h"

extern ouigemm_hamming_tile ouigemm_avx512vpopcntdq_hamming_4x4;

const ouigemm_rung ouigemm_rung_avx512vpopcntdq = {
    .name = "avx512vpopcntdq",
    .needs = CPU_ZMM | CPU_AVX512 | CPU_AVX2 | CPU_AVX512_VPOPCNTDQ,
    .hamming = ouigemm_avx512vpopcntdq_hamming_4x4,
};
