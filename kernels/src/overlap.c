#include "overlap.h"

#include "epilogue.h"
#include "pack.h"
#include "weights.h"

/* The memory between the first and the last byte of a matrix. */
typedef struct span {
    uintptr_t low, high;
} span;

static span span_of(const void *data, ptrdiff_t row, ptrdiff_t col, size_t rows, size_t cols, size_t bytes)
{
    span s = {(uintptr_t)data, (uintptr_t)data};
    if (rows == 0 || cols == 0)
        return s;
    const ptrdiff_t steps[2] = {(ptrdiff_t)(rows - 1) * row, (ptrdiff_t)(cols - 1) * col};
    for (int i = 0; i < 2; i++)
        *(steps[i] < 0 ? &s.low : &s.high) += (uintptr_t)(steps[i] * (ptrdiff_t)bytes);
    s.high += bytes;
    return s;
}

static int overlap(span x, span y)
{
    return x.low < y.high && y.low < x.high;
}

ouigemm_status check_overlap(const ouigemm_call *call)
{
    const size_t bytes = element_bytes(element_of_a(call->type));
    const span c = span_of(call->c, call->c_row, call->c_col, call->m, call->n,
                           epilogue_bytes(call->epilogue.output));
    if (overlap(c, span_of(call->a.data, call->a.row, call->a.col, call->m, call->k, bytes)))
        return OUIGEMM_C_OVERLAPS_A;
    if (!call->packed && overlap(c, span_of(call->b.data, call->b.row, call->b.col, call->k, call->n, bytes)))
        return OUIGEMM_C_OVERLAPS_B;
    return OUIGEMM_OK;
}
