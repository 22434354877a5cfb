/* NEON: 128-bit accumulators. */
#include <arm_neon.h>
#include <string.h>

#define LANES 4

static inline int32x4_t repeat(const void *p)
{
    int32_t four_bytes;
    memcpy(&four_bytes, p, 4);
    return vdupq_n_s32(four_bytes);
}
