#include "weights.h"

#include "buffer.h"
#include "ladder.h"
#include "pack.h"
#include "pool.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { LARGEST_TILE = 64 * 64, PANELS_AT_ONCE = 8 };

struct filling {
    struct ouigemm_packed *weights;
    const ouigemm_matrix *b;
    ouigemm_pack_panels *pack;
    atomic_size_t next;
};

ouigemm_element element_of_a(ouigemm_type type)
{
    static const ouigemm_element elements[] = {OUIGEMM_E_F32, OUIGEMM_E_BF16, OUIGEMM_E_S16,
                                               OUIGEMM_E_U8, OUIGEMM_E_S8};
    return elements[type];
}

static ouigemm_element element_of_b(ouigemm_type type)
{
    return type == OUIGEMM_U8S8 ? OUIGEMM_E_S8 : element_of_a(type);
}

/* Whether a kernel takes 8-bit numbers of the other sign than A's, and so needs the column sums of B. What
   is packed for s8 also serves u8. */
static int is_shifted(const struct ouigemm_packed *w)
{
    if (w->kernel->b != OUIGEMM_E_S8)
        return 0;
    return w->kernel->a != element_of_a(w->type) ||
           (w->type == OUIGEMM_S8S8 && ladder_family(OUIGEMM_U8S8, w->rung)[0]->a != OUIGEMM_E_U8);
}

static size_t round_up(size_t x, size_t step)
{
    return (x + step - 1) / step * step;
}

static size_t panel_bytes(const struct ouigemm_packed *w)
{
    return w->kernel->nr * w->depth * element_bytes(w->kernel->b);
}

ouigemm_status weights_plan(struct ouigemm_packed *w, ouigemm_type type, int rung, size_t k, size_t n)
{
    const ouigemm_ukernel *const *family = ladder_family(type, rung);
    if (!family)
        return OUIGEMM_NOT_AVAILABLE;
    const ouigemm_ukernel *kernel = ladder_pick_width(family, n);
    *w = (struct ouigemm_packed){
        .type = type,
        .rung = rung,
        .kernel = kernel,
        .n = n,
        .k = k,
        .depth = round_up(k, kernel->ka),
    };
    size_t start = is_shifted(w) ? kernel->nr * sizeof(int32_t) : 0;
    size_t panels = round_up(n, kernel->nr) / kernel->nr;
    if (__builtin_mul_overflow(panels, panel_bytes(w) + start, &w->bytes))
        return OUIGEMM_NO_MEMORY;
    return OUIGEMM_OK;
}

/* The column sums times what A was shifted by, by the micro-kernel itself: A is one group of bytes 128, which
   signed kernels read as -128, again and again. */
static void sum_columns(const struct ouigemm_packed *w, const void *panel, int32_t *start)
{
    static const uint8_t ones_of_128[4] = {128, 128, 128, 128};
    _Alignas(64) uint32_t tile[LARGEST_TILE];
    w->kernel->run(&(ouigemm_tile_call){
        .groups = w->depth / w->kernel->ka,
        .a = ones_of_128,
        .b = panel,
        .c = tile,
        .c_row = (ptrdiff_t)(w->kernel->nr * sizeof *tile),
    });
    for (size_t j = 0; j < w->kernel->nr; j++)
        start[j] = (int32_t)(0 - tile[j]);
}

/* Some panels at a time, whose rows lie side by side in B. */
static void fill_panels(void *job)
{
    struct filling *f = job;
    const struct ouigemm_packed *w = f->weights;
    const size_t nr = w->kernel->nr, columns = PANELS_AT_ONCE * nr;
    for (;;) {
        size_t j = atomic_fetch_add(&f->next, 1) * columns;
        if (j >= w->n)
            return;
        char *panels = w->panels + j / nr * panel_bytes(w);
        size_t here = w->n - j < columns ? w->n - j : columns;
        ptrdiff_t offset = (ptrdiff_t)(j * element_bytes(element_of_b(w->type))) * f->b->col;
        pack_source source = {(const char *)f->b->data + offset, f->b->col, f->b->row, here, w->k,
                              element_of_b(w->type)};
        pack_target target = {panels, nr, w->kernel->kr, w->kernel->ka, 0, w->kernel->b};
        f->pack(&source, &target);
        for (size_t i = 0; w->start && i < here; i += nr)
            sum_columns(w, panels + i / nr * panel_bytes(w), w->start + j + i);
    }
}

void weights_fill(struct ouigemm_packed *w, const ouigemm_matrix *b, void *memory, int threads)
{
    size_t panels = round_up(w->n, w->kernel->nr) / w->kernel->nr;
    w->panels = memory;
    w->start = is_shifted(w) ? (int32_t *)(w->panels + panels * panel_bytes(w)) : NULL;
    struct filling filling = {.weights = w, .b = b, .pack = ladder_loops(w->rung)->pack};
    pool_run(threads, fill_panels, &filling);
}

ouigemm_status ouigemm_pack(ouigemm_type type, int rung, size_t k, size_t n, const ouigemm_matrix *b,
                            ouigemm_packed **packed)
{
    struct ouigemm_packed *w = malloc(sizeof *w);
    if (!w)
        return OUIGEMM_NO_MEMORY;
    ouigemm_status status = weights_plan(w, type, rung, k, n);
    void *memory = status == OUIGEMM_OK ? buffer_new(w->bytes) : NULL;
    if (!memory) {
        free(w);
        return status == OUIGEMM_OK ? OUIGEMM_NO_MEMORY : status;
    }
    weights_fill(w, b, memory, 1);
    *packed = w;
    return OUIGEMM_OK;
}

void ouigemm_packed_free(ouigemm_packed *w)
{
    if (w)
        buffer_free(w->panels);
    free(w);
}

size_t ouigemm_packed_bytes(const ouigemm_packed *w)
{
    return w->bytes;
}
