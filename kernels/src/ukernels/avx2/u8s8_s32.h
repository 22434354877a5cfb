/* Four steps of k at once, of which vpmaddubsw adds two in 16 bits: for a B none of whose pairs can leave them. */
#include "../vectors_256.h"

#define ONES _mm256_set1_epi16(1)
#define STEP(sum, a, b) _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), ONES))
#include "../vector_tile.h"

VECTOR_UKERNEL(avx2, u8s8_s32, OUIGEMM_E_U8, OUIGEMM_E_S8, 4)
