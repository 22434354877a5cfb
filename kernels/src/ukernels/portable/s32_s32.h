#define ELEMENT int32_t
#include "integers.h"

PORTABLE_UKERNEL(s32_s32, OUIGEMM_E_S32)
