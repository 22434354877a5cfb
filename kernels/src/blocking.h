#ifndef OUIGEMM_BLOCKING_H
#define OUIGEMM_BLOCKING_H

#include "ouigemm/ukernel.h"

ouigemm_blocks blocking(const ouigemm_ukernel *kernel, size_t m, size_t n, size_t k);

#endif
