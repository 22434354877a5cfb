#include <immintrin.h>

#define VECTOR __m256
#define LANES 8
#define ZERO() _mm256_setzero_ps()
#define LOAD(p) _mm256_loadu_ps((const float *)(p))
#define STORE(p, x) _mm256_storeu_ps((float *)(p), x)
#define REPEAT(p) _mm256_broadcast_ss((const float *)(p))
#define ADD(x, y) _mm256_add_ps(x, y)
#define STEP(sum, a, b) _mm256_fmadd_ps(a, b, sum)
#include "../vector_tile.h"

VECTOR_UKERNEL(avx2, f32_f32, OUIGEMM_E_F32, OUIGEMM_E_F32, 1)
