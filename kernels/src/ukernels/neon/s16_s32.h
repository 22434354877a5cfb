/* No instruction sums pairs of 16-bit products on NEON: they are made in 32 bits, two vectors of them, and
   neighbours are added. The sum of a pair wraps as all sums do. */
#include "../integers_128.h"

static inline int32x4_t pairs(int32x4_t sum, int32x4_t a, int32x4_t b)
{
    int16x8_t x = vreinterpretq_s16_s32(a), y = vreinterpretq_s16_s32(b);
    int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
    return vaddq_s32(sum, vpaddq_s32(low, high));
}
#define STEP(sum, a, b) pairs(sum, a, b)
#include "../vector_tile.h"

VECTOR_UKERNEL(neon, s16_s32, OUIGEMM_E_S16, OUIGEMM_E_S16, 2)
