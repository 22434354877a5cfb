/* vdpbf16ps: rounds once per pair of products, and takes subnormal numbers for zero. */
#include <immintrin.h>
#include <string.h>

#define VECTOR __m512
#define LANES 16
#define ZERO() _mm512_setzero_ps()
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define REPEAT(p) repeat(p)
#define ADD(x, y) _mm512_add_ps(x, y)
#define STEP(sum, a, b) _mm512_dpbf16_ps(sum, (__m512bh)(a), (__m512bh)(b))

static inline __m512 repeat(const void *p)
{
    int four_bytes;
    memcpy(&four_bytes, p, 4);
    return _mm512_castsi512_ps(_mm512_set1_epi32(four_bytes));
}
#include "../vector_tile.h"

VECTOR_UKERNEL(avx512bf16, bf16_f32, OUIGEMM_E_BF16, OUIGEMM_E_BF16, 2)
