/* Packing for all pairs of types, compiled once per register width. The including file defines
   PACK_PANELS, the name of the one function that it gives away, and may define PACK_BYTES_BY_4 where it has
   something quicker than bytes_by_4 below. */
#include "pack.h"

#include <string.h>

enum { STRIP = 64 };                       /* steps of the depth; whole groups of every kernel */
enum { GROUPS_FROM_AFAR = 8 };
enum { FAR = 1 << 20 };                    /* bytes of a matrix that is not at hand in level 2 */
enum { AHEAD = 256 };                      /* bytes of a row */

#define PACK_NAME copy_4
#define PACK_FROM uint32_t
#define PACK_TO uint32_t
#define PACK_CONVERT(x) (x)
#include "pack_as.h"

#define PACK_NAME copy_2
#define PACK_FROM uint16_t
#define PACK_TO uint16_t
#define PACK_CONVERT(x) (x)
#include "pack_as.h"

#ifndef PACK_BYTES_BY_4
#define PACK_BYTES_BY_4 bytes_by_4

typedef uint8_t bytes_16 __attribute__((vector_size(16)));
typedef uint16_t pairs_8 __attribute__((vector_size(16)));

/* Four rows of 16 bytes, column by column: bytes are interleaved, then pairs of bytes. */
static inline void transpose_4_by_16(const uint8_t *restrict from, ptrdiff_t step, uint8_t *restrict to)
{
    bytes_16 r[4];
    for (int q = 0; q < 4; q++)
        memcpy(&r[q], from + q * step, 16);
    for (int half = 0; half < 2; half++) {
        pairs_8 even, odd;
        if (half == 0) {
            even = (pairs_8)__builtin_shufflevector(r[0], r[1], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            odd = (pairs_8)__builtin_shufflevector(r[2], r[3], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        } else {
            even = (pairs_8)__builtin_shufflevector(r[0], r[1], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
            odd = (pairs_8)__builtin_shufflevector(r[2], r[3], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        pairs_8 first = __builtin_shufflevector(even, odd, 0, 8, 1, 9, 2, 10, 3, 11);
        pairs_8 second = __builtin_shufflevector(even, odd, 4, 12, 5, 13, 6, 14, 7, 15);
        memcpy(to + 32 * half, &first, 16);
        memcpy(to + 32 * half + 16, &second, 16);
    }
}

static inline void bytes_by_4(const uint8_t *restrict from, ptrdiff_t step, size_t lanes, size_t groups,
                              uint8_t *restrict to, size_t width)
{
    const size_t whole = lanes / 16 * 16;
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *rows = from + (ptrdiff_t)(4 * g) * step;
        for (size_t i = 0; i < whole; i += 16)
            transpose_4_by_16(rows + i, step, to + (g * width + i) * 4);
        for (size_t i = whole; i < lanes; i++)
            for (size_t q = 0; q < 4; q++)
                to[(g * width + i) * 4 + q] = rows[(ptrdiff_t)i + (ptrdiff_t)q * step];
    }
}

#endif

#define PACK_NAME copy_1
#define PACK_LANES_BY_4 PACK_BYTES_BY_4
#define PACK_FROM uint8_t
#define PACK_TO uint8_t
#define PACK_CONVERT(x) (x)
#include "pack_as.h"

#define PACK_NAME other_sign /* s8 + 128 as u8, or u8 - 128 as s8 */
#define PACK_FROM uint8_t
#define PACK_TO uint8_t
#define PACK_CONVERT(x) ((uint8_t)((x) ^ 0x80))
#include "pack_as.h"

#define PACK_NAME u8_to_s16
#define PACK_FROM uint8_t
#define PACK_TO int16_t
#define PACK_CONVERT(x) ((int16_t)(x))
#include "pack_as.h"

#define PACK_NAME s8_to_s16
#define PACK_FROM int8_t
#define PACK_TO int16_t
#define PACK_CONVERT(x) ((int16_t)(x))
#include "pack_as.h"

#define PACK_NAME bf16_to_f32 /* a bf16 is the upper half of an f32 */
#define PACK_FROM uint16_t
#define PACK_TO uint32_t
#define PACK_CONVERT(x) ((uint32_t)(x) << 16)
#include "pack_as.h"

ouigemm_pack_panels PACK_PANELS;

void PACK_PANELS(const pack_source *source, const pack_target *target)
{
    ouigemm_element from = source->element, to = target->element;
    if (from == to) {
        size_t bytes = element_bytes(from);
        (bytes == 4 ? copy_4 : bytes == 2 ? copy_2 : copy_1)(source, target);
    } else if (to == OUIGEMM_E_F32) {
        bf16_to_f32(source, target);
    } else if (element_bytes(to) == 1) {
        other_sign(source, target);
    } else {
        (from == OUIGEMM_E_U8 ? u8_to_s16 : s8_to_s16)(source, target);
    }
}
