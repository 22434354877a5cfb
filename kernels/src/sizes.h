#ifndef OUIGEMM_SIZES_H
#define OUIGEMM_SIZES_H

#include <stddef.h>

enum { LINE = 64, ACCUMULATOR = 4 };  /* bytes of a cache line, and of a sum */

static inline size_t least(size_t x, size_t y)
{
    return x < y ? x : y;
}

static inline size_t parts(size_t extent, size_t step)
{
    return (extent + step - 1) / step;
}

static inline size_t round_up(size_t extent, size_t step)
{
    return parts(extent, step) * step;
}

#endif
