#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Four rows of 16 bytes, column by column, in one register: doublewords find their lane, then bytes their
   place in it. */
static inline void transpose_4_by_16(const uint8_t *from, ptrdiff_t step, uint8_t *to)
{
    const __m512i doublewords = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512i bytes = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    __m512i rows = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)from));
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)(from + step)), 1);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)(from + 2 * step)), 2);
    rows = _mm512_inserti32x4(rows, _mm_loadu_si128((const __m128i *)(from + 3 * step)), 3);
    _mm512_storeu_si512(to, _mm512_shuffle_epi8(_mm512_permutexvar_epi32(doublewords, rows), bytes));
}

#define PACK_PANELS ouigemm_avx512_pack
#define PACK_TRANSPOSES
#include "../../pack_loops.h"
