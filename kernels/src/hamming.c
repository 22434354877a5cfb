/* All-pairs Hamming distances: tiles of 4 x 4 rows on and above the diagonal, and their mirror image. */
#include "buffer.h"
#include "ladder.h"
#include "pool.h"

#include <stdatomic.h>
#include <string.h>

enum { TILE = 4, LINE_WORDS = 8, LINES_IN_L1 = 64 };  /* 64 lines of 8 rows are 32 KB */

struct distances {
    ouigemm_hamming_tile *tile;
    const uint64_t *bits;  /* whole tiles of rows and whole lines of words */
    size_t rows, lines;
    int64_t *distances;
    atomic_size_t next;
};

static void store(const struct distances *d, size_t i0, size_t j0, uint64_t counts[TILE][TILE])
{
    for (size_t i = i0; i < i0 + TILE && i < d->rows; i++)
        for (size_t j = j0; j < j0 + TILE && j < d->rows; j++) {
            int64_t count = (int64_t)counts[i - i0][j - j0];
            d->distances[i * d->rows + j] = count;
            d->distances[j * d->rows + i] = count;
        }
}

/* One row of tiles at a time, as long as there are any. */
static void compute(void *job, int unused)
{
    (void)unused;
    struct distances *d = job;
    const size_t words = d->lines * LINE_WORDS;
    for (size_t i; (i = TILE * atomic_fetch_add(&d->next, 1)) < d->rows;) {
        for (size_t j = i; j < d->rows; j += TILE) {
            uint64_t counts[TILE][TILE] = {{0}};
            for (size_t from = 0; from < d->lines; from += LINES_IN_L1) {
                size_t lines = d->lines - from < LINES_IN_L1 ? d->lines - from : LINES_IN_L1;
                const uint64_t *bits = d->bits + from * LINE_WORDS;
                d->tile(lines, bits + i * words, bits + j * words, words, counts);
            }
            store(d, i, j, counts);
        }
    }
}

ouigemm_status ouigemm_hamming(const uint64_t *bits, size_t rows, size_t words, int rung, int threads,
                               int64_t *distances)
{
    struct distances d = {.tile = ladder_hamming(rung), .rows = rows, .distances = distances};
    if (!d.tile)
        return OUIGEMM_NOT_AVAILABLE;
    d.lines = (words + LINE_WORDS - 1) / LINE_WORDS;
    const size_t padded_rows = (rows + TILE - 1) / TILE * TILE, row_words = d.lines * LINE_WORDS;
    uint64_t *padded = buffer_of_thread(BUFFER_A, padded_rows * row_words * sizeof *padded);
    if (!padded)
        return OUIGEMM_NO_MEMORY;
    memset(padded, 0, padded_rows * row_words * sizeof *padded);
    for (size_t i = 0; i < rows && words; i++)
        memcpy(padded + i * row_words, bits + i * words, words * sizeof *padded);
    d.bits = padded;
    pool_run(rows * rows * words < (1 << 20) ? 1 : threads, compute, &d);
    return OUIGEMM_OK;
}
