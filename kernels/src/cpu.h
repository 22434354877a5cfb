/* What the CPU and the operating system offer, as bits. */
#ifndef OUIGEMM_CPU_H
#define OUIGEMM_CPU_H

#include <stdint.h>

enum {
    CPU_YMM = 1u << 0,  /* the operating system saves 256-bit registers */
    CPU_ZMM = 1u << 1,
    CPU_TILES = 1u << 2,  /* and tile registers, and this process may use them */
    CPU_AVX2 = 1u << 3,   /* with FMA */
    CPU_AVX_VNNI = 1u << 4,
    CPU_AVX512 = 1u << 5,  /* F, BW, DQ, VL */
    CPU_AVX512_VNNI = 1u << 6,
    CPU_AVX512_BF16 = 1u << 7,
    CPU_AVX512_VPOPCNTDQ = 1u << 8,
    CPU_AMX_INT8 = 1u << 9,
    CPU_AMX_BF16 = 1u << 10,
    CPU_AMD = 1u << 11,
    CPU_NEON = 1u << 12,
    CPU_NEON_DOT = 1u << 13,  /* SDOT */
    CPU_NEON_I8MM = 1u << 14, /* SMMLA and USMMLA */
    CPU_RVV = 1u << 15        /* version 1.0 */
};

/* Found once; the first call asks Linux for leave to use AMX where there is AMX. */
uint32_t cpu_features(void);
const char *cpu_feature_name(uint32_t bit);

#endif
