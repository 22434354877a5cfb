/* From sums to results: the last touch of a tile while it is still in the first cache. */
#ifndef OUIGEMM_EPILOGUE_H
#define OUIGEMM_EPILOGUE_H

#include "ouigemm/ukernel.h"

typedef struct epilogue_tile {
    const void *sums;   /* accumulators, f32 or s32 */
    size_t sums_row;    /* in elements */
    size_t rows, columns;
    size_t first_column;  /* in C: scale and bias belong to columns */
    void *c;            /* the tile's corner */
    ptrdiff_t c_row, c_col;
} epilogue_tile;

static inline size_t epilogue_bytes(ouigemm_output output)
{
    return output == OUIGEMM_S8 || output == OUIGEMM_U8 ? 1 : 4;
}

#endif
