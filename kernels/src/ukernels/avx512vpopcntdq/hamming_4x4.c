#include "ouigemm/ukernel.h"

#include <immintrin.h>

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 4")
#endif

ouigemm_hamming_tile ouigemm_avx512vpopcntdq_hamming_4x4;

void ouigemm_avx512vpopcntdq_hamming_4x4(size_t lines, const uint64_t *a, const uint64_t *b,
                                         size_t row_words, uint64_t counts[4][4])
{
    __m512i sums[4][4];
    UNROLL for (int i = 0; i < 4; i++)
        UNROLL for (int j = 0; j < 4; j++)
            sums[i][j] = _mm512_setzero_si512();
    for (size_t line = 0; line < lines; line++, a += 8, b += 8) {
        __m512i columns[4];
        UNROLL for (int j = 0; j < 4; j++)
            columns[j] = _mm512_load_si512(b + (size_t)j * row_words);
        UNROLL for (int i = 0; i < 4; i++) {
            __m512i row = _mm512_load_si512(a + (size_t)i * row_words);
            UNROLL for (int j = 0; j < 4; j++) {
                __m512i differ = _mm512_xor_si512(row, columns[j]);
                sums[i][j] = _mm512_add_epi64(sums[i][j], _mm512_popcnt_epi64(differ));
            }
        }
    }
    UNROLL for (int i = 0; i < 4; i++)
        UNROLL for (int j = 0; j < 4; j++)
            counts[i][j] += (uint64_t)_mm512_reduce_add_epi64(sums[i][j]);
}
