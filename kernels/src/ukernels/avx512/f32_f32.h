#include <immintrin.h>

#define VECTOR __m512
#define LANES 16
#define ZERO() _mm512_setzero_ps()
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define REPEAT(p) _mm512_set1_ps(*(const float *)(p))
#define ADD(x, y) _mm512_add_ps(x, y)
#define STEP(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#include "../vector_tile.h"

VECTOR_UKERNEL(avx512, f32_f32, OUIGEMM_E_F32, OUIGEMM_E_F32, 1)
