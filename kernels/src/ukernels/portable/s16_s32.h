#include <stdint.h>

#define ELEMENT int16_t
#define SUM uint32_t
#include "plain.h"

PORTABLE_UKERNEL(s16_s32, OUIGEMM_E_S16)
