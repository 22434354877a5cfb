#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>

/* Four rows of up to 64 bytes, column by column. Dwords are dealt out to the four lanes of a register first, so
   that bytes and then pairs of bytes are interleaved within lanes. */
static inline void bytes_by_4_of_512(const uint8_t *restrict from, ptrdiff_t step, size_t lanes, size_t groups,
                                     uint8_t *restrict to, size_t width)
{
    const __m512i dealt = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (size_t i = 0; i < lanes; i += 64) {
        const size_t columns = lanes - i < 64 ? lanes - i : 64;
        const __mmask64 present = ~0ULL >> (64 - columns);
        for (size_t g = 0; g < groups; g++) {
            __m512i row[4], quads[4];
            for (int q = 0; q < 4; q++)
                row[q] = _mm512_permutexvar_epi32(
                    dealt, _mm512_maskz_loadu_epi8(present, from + (ptrdiff_t)(4 * g + q) * step + i));
            const __m512i even_low = _mm512_unpacklo_epi8(row[0], row[1]);
            const __m512i even_high = _mm512_unpackhi_epi8(row[0], row[1]);
            const __m512i odd_low = _mm512_unpacklo_epi8(row[2], row[3]);
            const __m512i odd_high = _mm512_unpackhi_epi8(row[2], row[3]);
            quads[0] = _mm512_unpacklo_epi16(even_low, odd_low);
            quads[1] = _mm512_unpackhi_epi16(even_low, odd_low);
            quads[2] = _mm512_unpacklo_epi16(even_high, odd_high);
            quads[3] = _mm512_unpackhi_epi16(even_high, odd_high);
            for (size_t v = 0; v < columns; v += 16) {
                const __mmask16 stored = columns - v < 16 ? (1 << (columns - v)) - 1 : 0xffff;
                _mm512_mask_storeu_epi32(to + (g * width + i + v) * 4, stored, quads[v / 16]);
            }
        }
    }
}

#define PACK_PANELS ouigemm_avx512_pack
#define PACK_BYTES_BY_4 bytes_by_4_of_512
#include "../../pack_loops.h"
