/* The five loops around the micro-kernel, the same for every type and rung.

     ic  blocks of A, mc x k: packed here, by the thread that needs them, and kept in level 2
     jc  blocks of C, mc x nc: kept in level 2 while
     pc  the depth goes by in steps of kc
     jr  panels of B, kc x nr: kept in level 1
     ir  panels of A, mr x kc

   Against Goto's order (jc, pc, ic, jr, ir) the depth moves inside the blocks of C: sums are not
   carried to memory and back between its steps, an 8-bit result never exists in 32 bits outside the
   caches, and A is packed only once. The price is that B is packed as a whole beforehand, which is
   what weights are anyway.

   Threads take pieces (a block of A times a range of column panels) from a counter. Each element of C
   is made by one thread, in an order that no other thread changes: bits do not depend on `threads`. */
#include "blocking.h"
#include "buffer.h"
#include "epilogue.h"
#include "ladder.h"
#include "pack.h"
#include "pool.h"
#include "weights.h"

#include <stdatomic.h>
#include <string.h>

enum { ACCUMULATOR = 4, LINE = 64, SMALLEST_SHARE = 1 << 21, ALIASING_STRIDE = 2048 };

struct product {
    const ouigemm_call *call;
    const struct ouigemm_packed *weights;
    const ouigemm_ukernel *kernel;
    const ouigemm_rung *loops;  /* packs and stores */
    ouigemm_epilogue epilogue;
    const int32_t *start;  /* of the columns, where A is shifted */
    ouigemm_blocks blocks;
    size_t depth;          /* of A and B, or 0 where alpha = 0 makes them irrelevant */
    int one_step;          /* of loop pc */
    int direct;            /* whole tiles go straight to C */
    int in_place;          /* whole panels of A are read from A */
    int by_rows;           /* what is packed of A stays in rows */
    size_t pitch;          /* of those rows, in bytes */
    size_t splits, split;  /* ranges of columns, and the size of one */
    atomic_size_t next;
    atomic_int out_of_memory;
};

/* One thread's share of the product in hand. */
struct piece {
    const struct product *product;
    char *a;         /* packed panels of rows ic.. */
    char *sums;      /* tiles of the block of C, one after the other; one tile where pc has one step */
    size_t ic, rows;
    size_t j0, j1;
};

static size_t least(size_t x, size_t y)
{
    return x < y ? x : y;
}

static size_t round_up(size_t x, size_t step)
{
    return (x + step - 1) / step * step;
}

static const char *row_of_a(const struct product *p, size_t i)
{
    ptrdiff_t bytes = (ptrdiff_t)element_bytes(element_of_a(p->call->type));
    return (const char *)p->call->a.data + (ptrdiff_t)i * p->call->a.row * bytes;
}

/* Rows with consecutive k are copied as rows, converted and with zeros up to a whole tile: micro-kernels
   read them at any pitch, and to interleave them would take longer. */
static void pack_rows(const struct piece *piece, size_t from)
{
    const struct product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    pack_source source = {row_of_a(p, piece->ic + from), p->call->a.row, 1, piece->rows - from, p->depth,
                          element_of_a(p->call->type)};
    pack_target target = {piece->a + from * p->pitch, 1, u->ka, u->ka, p->pitch / element_bytes(u->a), u->a};
    p->loops->pack(&source, &target);
    size_t missing = round_up(piece->rows, u->mr) - piece->rows;
    memset(piece->a + piece->rows * p->pitch, 0, missing * p->pitch);
}

/* All rows, or only the ragged end where the others are read in place. */
static void pack_block_of_a(const struct piece *piece)
{
    const struct product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    if (p->by_rows) {
        pack_rows(piece, p->in_place ? piece->rows / u->mr * u->mr : 0);
        return;
    }
    pack_source source = {row_of_a(p, piece->ic), p->call->a.row, p->call->a.col, piece->rows, p->depth,
                          element_of_a(p->call->type)};
    pack_target target = {piece->a, u->mr, u->ka, u->ka, 0, u->a};
    p->loops->pack(&source, &target);
}

/* Where the micro-kernel finds rows ir.. of this piece from step pc of the depth on. */
static void point_at_a(const struct piece *piece, size_t ir, size_t pc, ouigemm_tile_call *t)
{
    const struct product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    const size_t bytes = element_bytes(u->a);
    t->a_row = (ptrdiff_t)(u->ka * bytes);
    t->a_group = t->a_row;
    if (p->in_place && ir + u->mr <= piece->rows) {
        t->a = row_of_a(p, piece->ic + ir) + pc * bytes;
        t->a_row = p->call->a.row * (ptrdiff_t)bytes;
    } else if (p->by_rows) {
        t->a = piece->a + ir * p->pitch + pc * bytes;
        t->a_row = (ptrdiff_t)p->pitch;
    } else {
        t->a = piece->a + (ir * p->weights->depth + pc * u->mr) * bytes;
        t->a_group = (ptrdiff_t)(u->mr * u->ka * bytes);
    }
}

static void store(const struct piece *piece, const void *sums, size_t ir, size_t jr)
{
    const struct product *p = piece->product;
    const ouigemm_call *call = p->call;
    const size_t i = piece->ic + ir;
    const ptrdiff_t bytes = (ptrdiff_t)epilogue_bytes(p->epilogue.output);
    epilogue_tile tile = {
        .sums = sums,
        .sums_row = p->kernel->nr,
        .rows = least(p->kernel->mr, piece->rows - ir),
        .columns = least(p->kernel->nr, call->n - jr),
        .first_column = jr,
        .c = (char *)call->c + ((ptrdiff_t)i * call->c_row + (ptrdiff_t)jr * call->c_col) * bytes,
        .c_row = call->c_row,
        .c_col = call->c_col,
    };
    p->loops->epilogue(&p->epilogue, call->type >= OUIGEMM_S16, &tile);
}

/* One tile for one step of the depth: into C at once, or into sums that the last step carries there. */
static void compute_tile(const struct piece *piece, ouigemm_tile_call *t, size_t ir, size_t jr, void *sums,
                         int last)
{
    const struct product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    const int whole = ir + u->mr <= piece->rows && jr + u->nr <= p->call->n;
    const int first = !t->accumulate;
    if (p->direct && whole) {
        t->c = (char *)p->call->c + ((ptrdiff_t)(piece->ic + ir) * p->call->c_row + (ptrdiff_t)jr) * ACCUMULATOR;
        t->c_row = p->call->c_row * ACCUMULATOR;
        t->accumulate = !first || p->epilogue.beta == 1;
        u->run(t);
        t->accumulate = !first;
        return;
    }
    t->c = sums;
    t->c_row = (ptrdiff_t)(u->nr * ACCUMULATOR);
    u->run(t);
    if (last)
        store(piece, sums, ir, jr);
}

/* Where B goes on after this panel: fetched from beyond level 2 while the panel is at work, a slice for
   every tile, because no hardware foresees the jump from one panel to the next. */
struct ahead {
    const char *next, *end;
    size_t slice;
};

static struct ahead look_ahead(const struct piece *piece, size_t jr, size_t pc, size_t steps)
{
    const ouigemm_ukernel *u = piece->product->kernel;
    const struct ouigemm_packed *w = piece->product->weights;
    const size_t bytes = element_bytes(u->b), tiles = (piece->rows + u->mr - 1) / u->mr;
    const char *next = w->panels + (jr * w->depth + pc * u->nr) * bytes;
    size_t ahead = jr < piece->j1 ? steps * u->nr * bytes : 0;
    return (struct ahead){next, next + ahead, round_up(ahead / tiles + 1, LINE)};
}

static void fetch(struct ahead *a)
{
    const char *end = a->next + least(a->slice, (size_t)(a->end - a->next));
    for (; a->next < end; a->next += LINE)
        __builtin_prefetch(a->next, 0, 2);
}

/* Loops jr and ir: a block of C, for one step of the depth. */
static void compute_block(const struct piece *piece, size_t jc, size_t columns, size_t pc)
{
    const struct product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    const struct ouigemm_packed *w = p->weights;
    const size_t depth = p->depth ? w->depth : 0;
    const size_t steps = least(p->blocks.kc, depth - pc);
    const int last = pc + steps >= depth;
    char *sums = piece->sums;
    for (size_t jr = jc; jr < jc + columns; jr += u->nr) {
        ouigemm_tile_call t = {
            .groups = steps / u->ka,
            .b = w->panels + (jr * w->depth + pc * u->nr) * element_bytes(u->b),
            .start = p->start && pc == 0 && depth ? p->start + jr : NULL,
            .accumulate = pc > 0,
        };
        struct ahead ahead = look_ahead(piece, jr + u->nr, pc, steps);
        for (size_t ir = 0; ir < piece->rows; ir += u->mr) {
            fetch(&ahead);
            point_at_a(piece, ir, pc, &t);
            compute_tile(piece, &t, ir, jr, sums, last);
            sums += p->one_step ? 0 : u->mr * u->nr * ACCUMULATOR;
        }
    }
}

/* Loops jc and pc. */
static void compute_piece(const struct piece *piece)
{
    const struct product *p = piece->product;
    for (size_t jc = piece->j0; jc < piece->j1; jc += p->blocks.nc) {
        size_t columns = least(p->blocks.nc, piece->j1 - jc), pc = 0;
        do {
            compute_block(piece, jc, columns, pc);
            pc += p->blocks.kc;
        } while (pc < (p->depth ? p->weights->depth : 0));
    }
}

/* Loop ic: pieces, until there are none left. */
static void compute(void *job)
{
    struct product *p = job;
    const ouigemm_ukernel *u = p->kernel;
    const size_t row_blocks = (p->call->m + p->blocks.mc - 1) / p->blocks.mc;
    const size_t waiting = p->one_step ? u->mr * u->nr : p->blocks.mc * least(p->blocks.nc, p->split);
    struct piece piece = {.product = p, .ic = SIZE_MAX};
    piece.a = buffer_of_thread(BUFFER_A, p->blocks.mc * p->pitch);
    piece.sums = buffer_of_thread(BUFFER_C, waiting * ACCUMULATOR);
    if (!piece.a || !piece.sums) {
        atomic_store(&p->out_of_memory, 1);
        return;
    }
    if (u->begin)
        u->begin(u);
    for (size_t i; (i = atomic_fetch_add(&p->next, 1)) < row_blocks * p->splits;) {
        size_t ic = i / p->splits * p->blocks.mc;
        piece.rows = least(p->blocks.mc, p->call->m - ic);
        piece.j0 = i % p->splits * p->split;
        piece.j1 = least(piece.j0 + p->split, p->call->n);
        if (ic != piece.ic && p->depth) {
            piece.ic = ic;
            pack_block_of_a(&piece);
        }
        piece.ic = ic;
        compute_piece(&piece);
    }
    if (u->end)
        u->end();
}

/* Reading A in place saves its packing. It wants consecutive k in whole groups, in the kernel's own type,
   and rows that do not all fall into the same few sets of the cache. */
static int reads_a_in_place(const ouigemm_call *call, const ouigemm_ukernel *u, size_t depth)
{
    size_t stride = (size_t)call->a.row * element_bytes(u->a);
    return u->a == element_of_a(call->type) && call->a.col == 1 && depth % u->ka == 0 &&
           (stride % ALIASING_STRIDE != 0 || call->n <= u->nr);
}

/* Rows first, since every piece packs its own rows; then columns, until all threads have work. */
static int share_out(struct product *p)
{
    const ouigemm_call *call = p->call;
    const size_t mr = p->kernel->mr, nr = p->kernel->nr;
    size_t work = call->m * call->n * (p->depth + 1) / SMALLEST_SHARE + 1;
    size_t threads = least(work, call->threads > 1 ? (size_t)call->threads : 1);
    size_t panels = (call->n + nr - 1) / nr, each = panels;
    if (threads > 1) {
        size_t rows = round_up(call->m / (2 * threads) + 1, mr);
        p->blocks.mc = least(p->blocks.mc, rows < 4 * mr ? 4 * mr : rows);
        size_t row_blocks = (call->m + p->blocks.mc - 1) / p->blocks.mc;
        size_t wanted = (2 * threads + row_blocks - 1) / row_blocks;
        each = (panels + wanted - 1) / wanted;
    }
    p->split = each * nr;
    p->splits = (panels + each - 1) / each;
    return (int)threads;
}

static void plan(struct product *p)
{
    const ouigemm_call *call = p->call;
    const ouigemm_epilogue *e = &p->epilogue;
    p->kernel = ladder_pick_height(ladder_family(call->type, p->weights->rung), p->weights->kernel->nr, call->m);
    p->loops = ladder_loops(p->weights->rung);
    p->blocks = blocking(p->kernel, call->m, call->n, p->depth);
    p->one_step = p->depth <= p->blocks.kc;
    p->in_place = reads_a_in_place(call, p->kernel, p->depth);
    p->by_rows = call->a.col == 1;
    p->pitch = round_up(p->weights->depth * element_bytes(p->kernel->a), LINE);
    p->pitch += p->pitch % (ALIASING_STRIDE / 4) == 0 ? LINE : 0;
    p->direct = e->output == OUIGEMM_ACCUMULATOR && e->alpha == 1 && (e->beta == 0 || e->beta == 1) &&
                call->c_col == 1;
}

ouigemm_status ouigemm_gemm(const ouigemm_call *call)
{
    struct product p = {.call = call, .weights = call->packed, .epilogue = call->epilogue};
    p.depth = p.epilogue.alpha == 0 ? 0 : call->k;
    if (call->m == 0 || call->n == 0)
        return OUIGEMM_OK;
    struct ouigemm_packed passing;
    if (!p.weights) {
        ouigemm_status status = weights_plan(&passing, call->type, call->rung, p.depth, call->n);
        if (status != OUIGEMM_OK)
            return status;
        p.weights = &passing;
    }
    plan(&p);
    int threads = share_out(&p);
    if (!call->packed) {
        void *memory = buffer_of_thread(BUFFER_B, passing.bytes);
        if (!memory)
            return OUIGEMM_NO_MEMORY;
        weights_fill(&passing, &call->b, memory, threads);
    }
    p.start = p.kernel->a == element_of_a(call->type) ? NULL : p.weights->start;
    pool_run(threads, compute, &p);
    return p.out_of_memory ? OUIGEMM_NO_MEMORY : OUIGEMM_OK;
}
