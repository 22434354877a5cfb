#define ELEMENT int16_t
#include "integers.h"

PORTABLE_UKERNEL(s16_s32, OUIGEMM_E_S16)
