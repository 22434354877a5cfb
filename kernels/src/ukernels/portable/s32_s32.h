#include <stdint.h>

#define ELEMENT int32_t
#define SUM uint32_t
#include "plain.h"

PORTABLE_UKERNEL(s32_s32, OUIGEMM_E_S32)
