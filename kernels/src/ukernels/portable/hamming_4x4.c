#include "ouigemm/ukernel.h"

/* Bits of a word, summed in fields of 2, 4 and 8 bits: not every CPU has an instruction for it. */
static uint64_t bits_of_word(uint64_t x)
{
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0f;
    return x * 0x0101010101010101 >> 56;
}

ouigemm_hamming_tile ouigemm_portable_hamming_4x4;

void ouigemm_portable_hamming_4x4(size_t lines, const uint64_t *a, const uint64_t *b, size_t row_words,
                                  uint64_t counts[4][4])
{
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++)
            for (size_t w = 0; w < 8 * lines; w++)
                counts[i][j] += bits_of_word(a[i * row_words + w] ^ b[j * row_words + w]);
}
