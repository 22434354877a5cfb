#define _GNU_SOURCE
#include "cpu.h"

#include "ouigemm/ouigemm.h"

#include <pthread.h>

static uint32_t found;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define HAS(reg, bit) (((reg) >> (bit)) & 1u)

static uint64_t extended_control_register(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Linux gives tile registers, 8 KB of state per thread, only to those who ask. */
static int tiles_permitted(void)
{
#if defined(__linux__)
    const long request_permission = 0x1023, tile_data = 18;
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#else
    return 0;
#endif
}

static uint32_t state_saved(void)
{
    uint32_t a, b, c, d, features = 0;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !HAS(c, 27)) /* OSXSAVE */
        return 0;
    uint64_t enabled = extended_control_register();
    if ((enabled & 0x6) == 0x6)
        features |= CPU_YMM;
    if ((enabled & 0xe6) == 0xe6)
        features |= CPU_ZMM;
    if ((enabled & 0x60000) == 0x60000 && __get_cpuid_count(7, 0, &a, &b, &c, &d) && HAS(d, 24) &&
        tiles_permitted())
        features |= CPU_TILES;
    return features;
}

static void find(void)
{
    uint32_t a, b, c, d, fma = 0;
    uint32_t features = state_saved();
    if (__get_cpuid(0, &a, &b, &c, &d) && b == signature_AMD_ebx)
        features |= CPU_AMD;
    if (__get_cpuid(1, &a, &b, &c, &d))
        fma = HAS(c, 12);
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        features |= HAS(b, 5) && fma ? CPU_AVX2 : 0;
        features |= HAS(b, 16) && HAS(b, 17) && HAS(b, 30) && HAS(b, 31) ? CPU_AVX512 : 0;
        features |= HAS(c, 11) ? CPU_AVX512_VNNI : 0;
        features |= HAS(c, 14) ? CPU_AVX512_VPOPCNTDQ : 0;
        features |= HAS(d, 22) ? CPU_AMX_BF16 : 0;
        features |= HAS(d, 25) ? CPU_AMX_INT8 : 0;
    }
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d)) {
        features |= HAS(a, 4) ? CPU_AVX_VNNI : 0;
        features |= HAS(a, 5) ? CPU_AVX512_BF16 : 0;
    }
#ifdef OUIGEMM_TILE_MODEL
    features |= CPU_TILES | CPU_AMX_INT8 | CPU_AMX_BF16;
#endif
    found = features;
}
#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif

/* Elsewhere than on Linux nobody is asked, and the baseline serves. */
static void find(void)
{
    found = CPU_NEON;
#if defined(__linux__)
    found |= getauxval(AT_HWCAP) >> 20 & 1 ? CPU_NEON_DOT : 0;
    found |= getauxval(AT_HWCAP2) >> 13 & 1 ? CPU_NEON_I8MM : 0;
#endif
}
#elif defined(__riscv) && defined(__linux__)
#include <sys/auxv.h>

static void find(void)
{
    found = getauxval(AT_HWCAP) >> ('V' - 'A') & 1 ? CPU_RVV : 0;
}
#else
static void find(void)
{
    found = 0;
}
#endif

uint32_t cpu_features(void)
{
    pthread_once(&once, find);
    return found;
}

const char *cpu_feature_name(uint32_t bit)
{
    static const char *const names[] = {
        "256-bit registers saved by the operating system",
        "512-bit registers saved by the operating system",
        "tile registers permitted by the operating system",
        "AVX2 with FMA",
        "AVX-VNNI",
        "AVX-512 F, BW, DQ and VL",
        "AVX512-VNNI",
        "AVX512-BF16",
        "AVX512-VPOPCNTDQ",
        "AMX-INT8",
        "AMX-BF16",
        "AMD's full-rate vdpbf16ps",
        "NEON",
        "NEON dot products",
        "NEON 8-bit matrix products",
        "RVV 1.0",
    };
    size_t index = (size_t)__builtin_ctz(bit);
    return index < sizeof names / sizeof *names ? names[index] : NULL;
}

const char *ouigemm_cpu_feature(int number, int *present)
{
    const char *name = number >= 0 && number < 32 ? cpu_feature_name(1u << number) : NULL;
    *present = name && (cpu_features() >> number & 1);
    return name;
}

int ouigemm_tiles_are_modelled(void)
{
#ifdef OUIGEMM_TILE_MODEL
    return 1;
#else
    return 0;
#endif
}
