/* For 8-bit matrices. A is packed as 16 bits; B stays in 8, which halves its way from memory, and is widened on its
   way into a register. Many rows would do that again and again: for them B is widened first, for s16_s32. */
#include "../vectors_256.h"

#define COLUMNS_OF_B(p) _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)(p)))
#define COLUMN_BYTES 2
#define STEP(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(a, b))
#include "../vector_tile.h"

#define S16_S32(m, n) OUIGEMM_UKERNEL_SYMBOL(avx2, s16_s32, m, n)
extern const ouigemm_ukernel S16_S32(MR, NR);
WIDENING_UKERNEL(avx2, s16s8_s32, OUIGEMM_E_S16, OUIGEMM_E_S8, 2, &S16_S32(MR, NR))
