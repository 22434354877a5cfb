/* 128-bit accumulators of 32-bit integers. */
#include "vectors_128.h"

#define VECTOR int32x4_t
#define ZERO() vdupq_n_s32(0)
#define LOAD(p) vld1q_s32((const int32_t *)(p))
#define STORE(p, x) vst1q_s32((int32_t *)(p), x)
#define REPEAT(p) repeat(p)
#define ADD(x, y) vaddq_s32(x, y)
