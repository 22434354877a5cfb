/* 256-bit integer accumulators. */
#include <immintrin.h>
#include <string.h>

#define VECTOR __m256i
#define LANES 8
#define ZERO() _mm256_setzero_si256()
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, x) _mm256_storeu_si256((__m256i *)(p), x)
#define REPEAT(p) repeat(p)
#define ADD(x, y) _mm256_add_epi32(x, y)

static inline __m256i repeat(const void *p)
{
    int four_bytes;
    memcpy(&four_bytes, p, 4);
    return _mm256_set1_epi32(four_bytes);
}
