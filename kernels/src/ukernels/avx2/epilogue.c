#include <immintrin.h>

#define EPILOGUE_STORE ouigemm_avx2_epilogue
#define EPILOGUE_LANES 8
#define EPILOGUE_GREATER(x, y) _mm256_max_ps((__m256)(x), (__m256)(y))
#define EPILOGUE_LESSER(x, y) _mm256_min_ps((__m256)(x), (__m256)(y))
#define EPILOGUE_WIDEN widened
#define EPILOGUE_NARROW narrowed
#include "../../epilogue.h"

typedef int32_t wide __attribute__((vector_size(32)));
typedef uint8_t narrow __attribute__((vector_size(8)));

static inline __attribute__((always_inline)) wide widened(narrow x)
{
    return (wide)_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((long long)x));
}

/* Within each half the low bytes to its lowest four, then the halves side by side. */
static inline __attribute__((always_inline)) narrow narrowed(wide x)
{
    const __m256i low = _mm256_setr_epi8(0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                         0, 4, 8, 12, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1);
    const __m256i q = _mm256_shuffle_epi8((__m256i)x, low);
    return (narrow)_mm_cvtsi128_si64(_mm_unpacklo_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1)));
}

#include "../../epilogue_loops.h"
