#include "weights.h"

#include "blocking.h"
#include "buffer.h"
#include "ladder.h"
#include "pack.h"
#include "pool.h"
#include "sizes.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { LARGEST_TILE = 64 * 64 };
static const size_t DEEPEST = SIZE_MAX >> 16;  /* up to here the bytes of panels and blocks fit a size_t */

struct filling {
    struct ouigemm_packed *weights;
    const ouigemm_matrix *b;
    size_t columns;  /* at a time */
    atomic_size_t next;
};

ouigemm_element element_of_a(ouigemm_type type)
{
    static const ouigemm_element elements[] = {OUIGEMM_E_F32, OUIGEMM_E_BF16, OUIGEMM_E_S16,
                                               OUIGEMM_E_S32, OUIGEMM_E_U8, OUIGEMM_E_S8};
    return elements[type];
}

ouigemm_element element_of_b(ouigemm_type type)
{
    return type == OUIGEMM_U8S8 ? OUIGEMM_E_S8 : element_of_a(type);
}

static const ouigemm_ukernel *widened(const struct ouigemm_packed *w, const ouigemm_ukernel *u)
{
    return w->use == ONE_PRODUCT && u->wide ? u->wide : u;
}

static const ouigemm_ukernel *const *weights_family(const struct ouigemm_packed *w, ouigemm_type type)
{
    return w->use == MANY_IN_PAIRS ? ladder_pairs(type, w->rung) : ladder_family(type, w->rung);
}

const ouigemm_ukernel *weights_kernel(const struct ouigemm_packed *w, ouigemm_type type, size_t m)
{
    const ouigemm_ukernel *u = ladder_pick_height(weights_family(w, type), w->kernel->nr, m);
    return ladder_pick_wide(widened(w, u), m);
}

/* Whether a kernel takes 8-bit numbers of the other sign than A's, and so needs the column sums of B. What
   is packed for s8 also serves u8. */
int weights_shifted(const struct ouigemm_packed *w)
{
    if (element_bytes(w->kernel->a) != 1)
        return 0;
    return w->kernel->a != element_of_a(w->type) ||
           (w->type == OUIGEMM_S8S8 && ladder_family(OUIGEMM_U8S8, w->rung)[0]->a != OUIGEMM_E_U8);
}

static size_t panel_bytes(const struct ouigemm_packed *w)
{
    return w->kernel->nr * w->depth * element_bytes(w->kernel->b);
}

/* Whether no row of B of an even number and the next add up to more than 128 or less than -128: then the products of
   both with any u8 add up to 255 · 128 at most, which 16 bits hold. B is read in the order in which it lies. */
static int weights_fit_pairs(const ouigemm_matrix *b, size_t k, size_t n)
{
    const int by_columns = labs(b->row) < labs(b->col);
    const size_t pairs = n ? k / 2 : 0, lines = by_columns ? n : pairs, each = by_columns ? pairs : n;
    const ptrdiff_t next = by_columns ? b->col : 2 * b->row, step = by_columns ? 2 * b->row : b->col;
    int fit = 1;
    for (size_t line = 0; line < lines && fit; line++) {
        const int8_t *even = (const int8_t *)b->data + (ptrdiff_t)line * next, *odd = even + b->row;
        for (size_t i = 0; i < each; i++, even += step, odd += step)
            fit &= *even + *odd >= -128 && *even + *odd <= 128;
    }
    return fit;
}

ouigemm_status weights_plan(struct ouigemm_packed *w, weights_use use, ouigemm_type type, int rung, size_t k, size_t n)
{
    *w = (struct ouigemm_packed){.type = type, .rung = rung, .use = use, .n = n, .k = k};
    if (k > DEEPEST)
        return OUIGEMM_NO_MEMORY;
    const ouigemm_ukernel *const *family = weights_family(w, type);
    if (!family)
        return OUIGEMM_NOT_AVAILABLE;
    w->kernel = widened(w, ladder_pick_width(family, n));
    w->depth = round_up(k, w->kernel->ka);
    size_t start = weights_shifted(w) ? w->kernel->nr * sizeof(int32_t) : 0;
    size_t panels = parts(n, w->kernel->nr);
    if (__builtin_mul_overflow(panels, panel_bytes(w) + start, &w->bytes))
        return OUIGEMM_NO_MEMORY;
    return OUIGEMM_OK;
}

/* The column sums times what A was shifted by, by the lowest micro-kernel: A is one group of bytes 128, which
   signed kernels read as -128, again and again. */
static void sum_columns(const struct ouigemm_packed *w, size_t steps, const void *panel, int32_t *start)
{
    const ouigemm_ukernel *u = ladder_pick_height(weights_family(w, w->type), w->kernel->nr, 1);
    static const uint8_t ones_of_128[4] = {128, 128, 128, 128};
    _Alignas(64) uint32_t tile[LARGEST_TILE];
    u->run(&(ouigemm_tile_call){
        .groups = steps / u->ka,
        .a = ones_of_128,
        .b = panel,
        .b_group = (ptrdiff_t)(u->ka * u->nr * element_bytes(u->b)),
        .c = tile,
        .c_row = (ptrdiff_t)(u->nr * sizeof *tile),
    });
    for (size_t j = 0; j < u->nr; j++)
        start[j] = (int32_t)(0 - tile[j]);
}

void weights_pack(const struct ouigemm_packed *w, const ouigemm_matrix *b, const weights_part *part,
                  char *panels, int32_t *start)
{
    const ouigemm_ukernel *u = w->kernel;
    const ouigemm_element element = element_of_b(w->type);
    const ptrdiff_t corner = (ptrdiff_t)part->j * b->col + (ptrdiff_t)part->p * b->row;
    const size_t left = w->k - part->p;
    pack_source source = {(const char *)b->data + corner * (ptrdiff_t)element_bytes(element), b->col, b->row,
                          part->columns, least(left, part->steps), element};
    pack_target target = {panels, u->nr, u->kr, u->ka, 0, u->b};
    ladder_loops(w->rung)->pack(&source, &target);
    for (size_t i = 0; start && i < part->columns; i += u->nr)
        sum_columns(w, part->steps, panels + i * part->steps * element_bytes(u->b), start + i);
}

/* Some panels at a time, whose rows lie side by side in B. */
static void fill_panels(void *job, int unused)
{
    (void)unused;
    struct filling *f = job;
    const struct ouigemm_packed *w = f->weights;
    for (;;) {
        size_t j = atomic_fetch_add(&f->next, 1) * f->columns;
        if (j >= w->n)
            return;
        weights_part part = {j, least(f->columns, w->n - j), 0, w->depth};
        weights_pack(w, f->b, &part, w->panels + j / w->kernel->nr * panel_bytes(w), w->start ? w->start + j : NULL);
    }
}

void weights_fill(struct ouigemm_packed *w, const ouigemm_matrix *b, void *memory, int threads)
{
    const size_t panels = parts(w->n, w->kernel->nr), each = parts(panels, (size_t)threads);
    w->panels = memory;
    w->start = weights_shifted(w) ? (int32_t *)(w->panels + panels * panel_bytes(w)) : NULL;
    struct filling filling = {w, b, columns_at_once(w->kernel, each * w->kernel->nr), 0};
    pool_run(each < panels ? threads : 1, fill_panels, &filling);
}

ouigemm_status ouigemm_pack(ouigemm_type type, int rung, size_t k, size_t n, const ouigemm_matrix *b,
                            ouigemm_packed **packed)
{
    struct ouigemm_packed *w = malloc(sizeof *w);
    if (!w)
        return OUIGEMM_NO_MEMORY;
    ouigemm_status status = weights_plan(w, MANY_PRODUCTS, type, rung, k, n);
    void *memory = status == OUIGEMM_OK ? buffer_new(w->bytes) : NULL;
    /* B is looked at only now: one that no memory holds may be endless. Panels of pairs are padded otherwise. */
    if (memory && ladder_pairs(type, rung) && weights_fit_pairs(b, k, n)) {
        buffer_free(memory);
        status = weights_plan(w, MANY_IN_PAIRS, type, rung, k, n);
        memory = status == OUIGEMM_OK ? buffer_new(w->bytes) : NULL;
    }
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

const char *ouigemm_packed_kernel(const ouigemm_packed *w, size_t m)
{
    return weights_kernel(w, w->type, m)->name;
}

size_t ouigemm_packed_bytes(const ouigemm_packed *w)
{
    return w->bytes;
}
