#include "ouigemm/ukernel.h"

#include <arm_neon.h>

static uint64_t distance(size_t lines, const uint64_t *a, const uint64_t *b)
{
    uint64x2_t sums = vdupq_n_u64(0);
    for (size_t line = 0; line < lines; line++, a += 8, b += 8) {
        uint8x16_t bytes = vdupq_n_u8(0);
        for (size_t v = 0; v < 8; v += 2) {
            uint64x2_t differ = veorq_u64(vld1q_u64(a + v), vld1q_u64(b + v));
            bytes = vaddq_u8(bytes, vcntq_u8(vreinterpretq_u8_u64(differ)));
        }
        sums = vaddq_u64(sums, vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(bytes))));
    }
    return vgetq_lane_u64(sums, 0) + vgetq_lane_u64(sums, 1);
}

ouigemm_hamming_tile ouigemm_neon_hamming_4x4;

void ouigemm_neon_hamming_4x4(size_t lines, const uint64_t *a, const uint64_t *b, size_t row_words,
                              uint64_t counts[4][4])
{
    for (size_t i = 0; i < 4; i++)
        for (size_t j = 0; j < 4; j++)
            counts[i][j] += distance(lines, a + i * row_words, b + j * row_words);
}
