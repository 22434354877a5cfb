#include "overlap.h"

#include "epilogue.h"
#include "pack.h"
#include "weights.h"

/* The memory between the first and the last byte of a matrix. */
typedef struct span {
    uintptr_t low, high;
} span;

/* Wider by the places of one more dimension: `count` of them, `step` elements apart. */
static void widen(span *s, size_t count, ptrdiff_t step, size_t bytes)
{
    const ptrdiff_t last = (ptrdiff_t)(count - 1) * step;
    *(last < 0 ? &s->low : &s->high) += (uintptr_t)(last * (ptrdiff_t)bytes);
}

static span span_of(const void *data, ptrdiff_t row, ptrdiff_t col, size_t rows, size_t cols, size_t bytes)
{
    span s = {(uintptr_t)data, (uintptr_t)data};
    if (rows == 0 || cols == 0)
        return s;
    widen(&s, rows, row, bytes);
    widen(&s, cols, col, bytes);
    s.high += bytes;
    return s;
}

static span span_of_a(const ouigemm_call *call)
{
    const size_t bytes = element_bytes(element_of_a(call->type));
    const ouigemm_windows *w = call->windows;
    if (!w || call->m == 0 || call->k == 0)
        return span_of(call->a.data, call->a.row, call->a.col, call->m, call->k, bytes);
    span s = span_of(call->a.data, call->a.row, 1, w->width, w->run, bytes);
    widen(&s, w->height, w->line_step, bytes);
    widen(&s, call->m / (w->width * w->height), w->image_step, bytes);
    widen(&s, w->columns, w->column_step, bytes);
    widen(&s, call->k / (w->columns * w->run), w->row_step, bytes);
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
    if (overlap(c, span_of_a(call)))
        return OUIGEMM_C_OVERLAPS_A;
    if (!call->packed && overlap(c, span_of(call->b.data, call->b.row, call->b.col, call->k, call->n, bytes)))
        return OUIGEMM_C_OVERLAPS_B;
    return OUIGEMM_OK;
}
