#include "../vectors_128.h"

#define VECTOR float32x4_t
#define ZERO() vdupq_n_f32(0)
#define LOAD(p) vld1q_f32((const float *)(p))
#define STORE(p, x) vst1q_f32((float *)(p), x)
#define REPEAT(p) vld1q_dup_f32((const float *)(p))
#define ADD(x, y) vaddq_f32(x, y)
#define STEP(sum, a, b) vfmaq_f32(sum, a, b)
#include "../vector_tile.h"

VECTOR_UKERNEL(neon, f32_f32, OUIGEMM_E_F32, OUIGEMM_E_F32, 1)
