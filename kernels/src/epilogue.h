/* From sums to results: the last touch of a tile while it is still in the first cache. */
#ifndef OUIGEMM_EPILOGUE_H
#define OUIGEMM_EPILOGUE_H

#include "ouigemm/ukernel.h"

enum { EPILOGUE_COLUMNS = 64 };  /* of a tile, at most */

typedef struct epilogue_tile {
    const void *sums;   /* accumulators, f32 or s32 */
    size_t sums_row;    /* in elements */
    size_t rows, columns;
    const float *factor;  /* alpha scale, for each column of the tile, */
    const float *bias;    /* and what is added: -0 for none, which changes no number */
    void *c;            /* the tile's corner */
    ptrdiff_t c_row, c_col;
} epilogue_tile;

/* For `width` columns of C from `first` on, of which `columns` exist. */
static inline void epilogue_prepare(const ouigemm_epilogue *e, size_t first, size_t columns, size_t width,
                                    float *factor, float *bias)
{
    const float alpha = (float)e->alpha, everywhere = alpha * *e->scale;
    for (size_t j = 0; j < width; j++) {
        const int inside = j < columns;
        factor[j] = e->scale_step && inside ? alpha * e->scale[first + j] : everywhere;
        bias[j] = e->bias && inside ? e->bias[first + j] : -0.0f;
    }
}

static inline size_t epilogue_bytes(ouigemm_output output)
{
    return output == OUIGEMM_S8 || output == OUIGEMM_U8 ? 1 : 4;
}

#endif
