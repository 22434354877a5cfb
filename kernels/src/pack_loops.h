/* Packing for all pairs of types, compiled once per register width. The including file defines
   PACK_PANELS, the name of the one function that it gives away. */
#include "pack.h"

#include <string.h>

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

#define PACK_NAME copy_1
#define PACK_FROM uint8_t
#define PACK_TO uint8_t
#define PACK_CONVERT(x) (x)
#include "pack_as.h"

#define PACK_NAME s8_plus_128
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
    } else if (to == OUIGEMM_E_U8) {
        s8_plus_128(source, target);
    } else {
        (from == OUIGEMM_E_U8 ? u8_to_s16 : s8_to_s16)(source, target);
    }
}
