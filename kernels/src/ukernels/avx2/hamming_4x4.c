#include "ouigemm/ukernel.h"

#include <immintrin.h>

/* Bits of every byte, by looking both halves of it up in a table of 16. */
static inline __m256i bits_of_bytes(__m256i x)
{
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4,
                                           0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i lower = _mm256_shuffle_epi8(table, _mm256_and_si256(x, low));
    __m256i upper = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi32(x, 4), low));
    return _mm256_add_epi8(lower, upper);
}

static uint64_t distance(size_t lines, const uint64_t *a, const uint64_t *b)
{
    const __m256i *x = (const __m256i *)a, *y = (const __m256i *)b;
    __m256i sums = _mm256_setzero_si256();
    for (size_t line = 0; line < lines; line++, x += 2, y += 2) {
        __m256i first = bits_of_bytes(_mm256_xor_si256(x[0], y[0]));
        __m256i second = bits_of_bytes(_mm256_xor_si256(x[1], y[1]));
        __m256i bytes = _mm256_add_epi8(first, second);
        sums = _mm256_add_epi64(sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
    }
    return (uint64_t)_mm256_extract_epi64(sums, 0) + (uint64_t)_mm256_extract_epi64(sums, 1) +
           (uint64_t)_mm256_extract_epi64(sums, 2) + (uint64_t)_mm256_extract_epi64(sums, 3);
}

ouigemm_hamming_tile ouigemm_avx2_hamming_4x4;

void ouigemm_avx2_hamming_4x4(size_t lines, const uint64_t *a, const uint64_t *b, size_t row_words,
                              uint64_t counts[4][4])
{
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++)
            counts[i][j] += distance(lines, a + i * row_words, b + j * row_words);
}
