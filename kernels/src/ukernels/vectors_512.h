/* 512-bit integer accumulators. */
#include <immintrin.h>
#include <string.h>

#define VECTOR __m512i
#define LANES 16
#define ZERO() _mm512_setzero_si512()
#define LOAD(p) _mm512_loadu_si512(p)
#define STORE(p, x) _mm512_storeu_si512(p, x)
#define REPEAT(p) repeat(p)
#define ADD(x, y) _mm512_add_epi32(x, y)

static inline __m512i repeat(const void *p)
{
    int four_bytes;
    memcpy(&four_bytes, p, 4);
    return _mm512_set1_epi32(four_bytes);
}
