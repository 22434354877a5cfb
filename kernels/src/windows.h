/* Where the windows of images lie: rows of A that are not stored as such (ouigemm_windows). */
#ifndef OUIGEMM_WINDOWS_H
#define OUIGEMM_WINDOWS_H

#include "ouigemm/ouigemm.h"

/* From the first number of A to the first of row i, in elements. */
static inline ptrdiff_t row_of_windows(const ouigemm_windows *w, ptrdiff_t step, size_t i)
{
    const size_t x = i % w->width, line = i / w->width;
    return (ptrdiff_t)x * step + (ptrdiff_t)(line % w->height) * w->line_step +
           (ptrdiff_t)(line / w->height) * w->image_step;
}

/* A run of a window: where it lies, from the first number of the window on, its column, and what is left of it. */
typedef struct windows_run {
    ptrdiff_t at;
    size_t column, left;
} windows_run;

/* From step p of the depth on. */
static inline windows_run run_of_windows(const ouigemm_windows *w, size_t p)
{
    const size_t run = p / w->run, column = run % w->columns;
    return (windows_run){(ptrdiff_t)(run / w->columns) * w->row_step + (ptrdiff_t)column * w->column_step +
                             (ptrdiff_t)(p % w->run),
                         column, w->run - p % w->run};
}

static inline void next_run(const ouigemm_windows *w, windows_run *run)
{
    run->at -= (ptrdiff_t)(w->run - run->left); /* to its beginning */
    run->left = w->run;
    if (++run->column < w->columns) {
        run->at += w->column_step;
    } else {
        run->at += w->row_step - (ptrdiff_t)(w->columns - 1) * w->column_step;
        run->column = 0;
    }
}

#endif
