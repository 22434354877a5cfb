#define ELEMENT float
#define SUM float
#include "plain.h"

PORTABLE_UKERNEL(f32_f32, OUIGEMM_E_F32)
