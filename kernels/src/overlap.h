/* A result in the memory of what it is made of would be read after it has been written. */
#ifndef OUIGEMM_OVERLAP_H
#define OUIGEMM_OVERLAP_H

#include "ouigemm/ouigemm.h"

/* By the first and the last byte of each matrix: columns between those of another matrix count as its memory. */
ouigemm_status check_overlap(const ouigemm_call *call);

#endif
