/* The five loops around the micro-kernel, the same for every type and rung.

     ic  blocks of A, mc x k: packed here, by the thread that needs them, and kept in level 2
     jc  blocks of C, mc x nc: kept in level 2 while
     pc  the depth goes by in steps of kc
     jr  panels of B, kc x nr: kept in level 2, or in level 1 where they are small
     ir  panels of A, mr x kc

   Against Goto's order (jc, pc, ic, jr, ir) the depth moves inside the blocks of C: sums are not
   carried to memory and back between its steps, an 8-bit result never exists in 32 bits outside the
   caches, and A is packed only once. The price is that B is packed as a whole beforehand, which is
   what weights are anyway. Only where A is a single block, or B no larger than level 1, every thread
   packs what it needs of B, block by block.

   Each thread has a range of pieces (a block of A times a range of column panels), the same at every call, so
   that what it needs is in its own cache; when it has done them it takes what others have left. Each element
   of C is made by one thread, in an order that no other thread changes: bits do not depend on `threads`. */
#include "blocking.h"
#include "buffer.h"
#include "epilogue.h"
#include "pack.h"
#include "product.h"
#include "sizes.h"
#include "weights.h"
#include "windows.h"

#include <string.h>

enum { FEW_LINES = 8 };
enum { AHEAD_IN_PANEL = 4096, AHEAD_IN_ROW = 256 };  /* bytes; 1 to 8 KB and 256 to 1,024 bytes were tried */

/* One thread's share of the product in hand. */
struct piece {
    const product *product;
    char *a;         /* packed panels of rows ic.. */
    char *sums;      /* tiles of the block of C, one after the other; one tile where pc has one step */
    char *room;      /* for a block of B, where it is made here, and for its start */
    weights_part packed;  /* what is in the room */
    const char **tiles;   /* for each its first row of A, where it is read in place; NULL where it is packed */
    size_t pc;       /* the step of the depth in hand, */
    windows_run run;      /* where it is in a window, */
    const char *b;   /* the block of B there, */
    size_t b_panel;  /* bytes from one of its panels to the next, */
    ptrdiff_t b_group;     /* and from one group of the depth to the next, */
    const int32_t *start;  /* and what its columns begin with */
    float *factor, *bias;  /* of columns j0 to j1, where results are scaled */
    size_t ic, rows, in_place;
    size_t j0, j1;
};

static const char *row_of_a(const product *p, size_t i)
{
    const ouigemm_call *call = p->call;
    ptrdiff_t bytes = (ptrdiff_t)element_bytes(element_of_a(call->type));
    ptrdiff_t offset = call->windows ? row_of_windows(call->windows, call->a.row, i) : (ptrdiff_t)i * call->a.row;
    return (const char *)call->a.data + offset * bytes;
}

/* Finds the tiles that are read where A lies: of a matrix those of the first rows, of windows those that share a
   line. */
static void find_tiles(const struct piece *piece)
{
    const product *p = piece->product;
    const size_t mr = p->kernel->mr, width = p->windows_in_place ? p->call->windows->width : 0;
    for (size_t ir = 0; ir < piece->rows; ir += mr) {
        const int there = width ? (piece->ic + ir) % width + mr <= width : ir < piece->in_place;
        piece->tiles[ir / mr] = there ? row_of_a(p, piece->ic + ir) : NULL;
    }
}

/* Rows with consecutive k are copied as rows, and converted: micro-kernels read them at any pitch, and to interleave
   them would take longer. */
static void pack_rows(const struct piece *piece, size_t from)
{
    const product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    pack_source source = {row_of_a(p, piece->ic + from), p->call->a.row, 1, piece->rows - from, p->depth,
                          element_of_a(p->call->type)};
    pack_target target = {piece->a + from * p->pitch, 1, u->ka, u->ka, p->pitch / element_bytes(u->a), u->a};
    p->loops->pack(&source, &target);
}

/* Rows from.. to.. that share a line of windows, copied run by run: their numbers lie as rows do. */
static void pack_line(const struct piece *piece, size_t from, size_t to)
{
    const product *p = piece->product;
    const ouigemm_windows *w = p->call->windows;
    const ouigemm_element element = element_of_a(p->call->type);
    const size_t bytes = element_bytes(p->kernel->a), end = p->depth * bytes;
    const char *a = row_of_a(p, piece->ic + from);
    char *rows = piece->a + from * p->pitch;
    windows_run run = run_of_windows(w, 0);
    for (size_t k = 0; k < p->depth; k += w->run) {
        pack_source source = {a + run.at * (ptrdiff_t)element_bytes(element), p->call->a.row, 1, to - from, w->run,
                              element};
        pack_target target = {rows + k * bytes, 1, 1, 1, p->pitch / bytes, p->kernel->a};
        p->loops->pack(&source, &target);
        next_run(w, &run);
    }
    for (size_t i = from; i < to; i++, rows += p->pitch)
        memset(rows + end, 0, p->weights->depth * bytes - end);
}

/* Line by line, or only the tiles that are not read in place. */
static void pack_windows(const struct piece *piece)
{
    const product *p = piece->product;
    const size_t mr = p->kernel->mr, width = p->call->windows->width;
    for (size_t i = 0, end; i < piece->rows; i = end) {
        end = least(piece->rows, p->windows_in_place ? (i / mr + 1) * mr : SIZE_MAX);
        if (piece->tiles[i / mr])
            continue;
        end = least(end, i + width - (piece->ic + i) % width);
        pack_line(piece, i, end);
    }
}

static void pack_panels(const struct piece *piece)
{
    const product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    pack_source source = {row_of_a(p, piece->ic), p->call->a.row, p->call->a.col, piece->rows, p->depth,
                          element_of_a(p->call->type)};
    pack_target target = {piece->a, u->mr, u->ka, u->ka, 0, u->a};
    p->loops->pack(&source, &target);
}

/* What is not read in place, with zeros up to a whole tile. */
static void pack_block_of_a(const struct piece *piece)
{
    const product *p = piece->product;
    if (!p->by_rows) {
        pack_panels(piece);
        return;
    }
    if (p->call->windows)
        pack_windows(piece);
    else if (piece->in_place < piece->rows)
        pack_rows(piece, piece->in_place);
    const size_t missing = round_up(piece->rows, p->kernel->mr) - piece->rows;
    memset(piece->a + piece->rows * p->pitch, 0, missing * p->pitch);
}

/* Where the micro-kernel finds rows ir.. of this piece from the step in hand on. */
static void point_at_a(const struct piece *piece, size_t ir, ouigemm_tile_call *t)
{
    const product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    const size_t bytes = element_bytes(u->a), pc = piece->pc;
    const char *in_place = piece->tiles[ir / u->mr];
    t->a_row = (ptrdiff_t)(u->ka * bytes);
    t->a_group = t->a_row;
    if (in_place) {
        t->a = in_place + (p->call->windows ? piece->run.at : (ptrdiff_t)pc) * (ptrdiff_t)bytes;
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
    const product *p = piece->product;
    const ouigemm_call *call = p->call;
    const size_t i = piece->ic + ir;
    const ptrdiff_t bytes = (ptrdiff_t)epilogue_bytes(p->epilogue.output);
    epilogue_tile tile = {
        .sums = sums,
        .sums_row = p->kernel->nr,
        .rows = least(p->kernel->mr, piece->rows - ir),
        .columns = least(p->kernel->nr, call->n - jr),
        .factor = piece->factor + (jr - piece->j0),
        .bias = piece->bias + (jr - piece->j0),
        .c = (char *)call->c + ((ptrdiff_t)i * call->c_row + (ptrdiff_t)jr * call->c_col) * bytes,
        .c_row = call->c_row,
        .c_col = call->c_col,
    };
    p->loops->epilogue(&p->epilogue, call->type >= OUIGEMM_S16, &tile);
}

/* The micro-kernel: once, or where windows are read in place once for every run, of packed tiles too: the order of
   sums must not depend on where in a line a window is. */
static void run_tile(const struct piece *piece, const ouigemm_tile_call *t, size_t ir)
{
    const product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    const ouigemm_windows *w = p->call->windows;
    if (!p->windows_in_place || t->groups <= piece->run.left / u->ka) {
        u->run(t);
        return;
    }
    const ptrdiff_t bytes = (ptrdiff_t)element_bytes(u->a);
    const int in_place = piece->tiles[ir / u->mr] != NULL;
    windows_run run = piece->run;
    ouigemm_tile_call part = *t;
    for (size_t done = 0; done < t->groups; done += part.groups, next_run(w, &run)) {
        part.a = (const char *)t->a + (in_place ? (run.at - piece->run.at) * bytes : (ptrdiff_t)done * t->a_group);
        part.b = (const char *)t->b + (ptrdiff_t)done * t->b_group;
        part.ahead = t->ahead + done * t->ahead_step;
        part.groups = least(t->groups - done, run.left / u->ka);
        u->run(&part);
        part.accumulate = 1;
        part.start = NULL;
    }
}

/* One tile for one step of the depth: into C at once, or into sums that the last step carries there. */
static void compute_tile(const struct piece *piece, ouigemm_tile_call *t, size_t ir, size_t jr, void *sums,
                         int last)
{
    const product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    const int whole = ir + u->mr <= piece->rows && jr + u->nr <= p->call->n;
    const int first = !t->accumulate;
    if (p->direct && whole) {
        t->c = (char *)p->call->c + ((ptrdiff_t)(piece->ic + ir) * p->call->c_row + (ptrdiff_t)jr) * ACCUMULATOR;
        t->c_row = p->call->c_row * ACCUMULATOR;
        t->accumulate = !first || p->epilogue.beta == 1;
        run_tile(piece, t, ir);
        t->accumulate = !first;
        return;
    }
    t->c = sums;
    t->c_row = (ptrdiff_t)(u->nr * ACCUMULATOR);
    run_tile(piece, t, ir);
    if (last)
        store(piece, sums, ir, jr);
}

/* A block of the packed B in the type that the kernel takes: its panels are rows that stay rows. */
static void widen_block_of_b(const struct piece *piece, const weights_part *part)
{
    const product *p = piece->product;
    const struct ouigemm_packed *w = p->weights;
    const size_t nr = p->kernel->nr, corner = (part->j / nr * w->depth + part->p) * nr;
    pack_source source = {w->panels + corner * element_bytes(w->kernel->b), (ptrdiff_t)(w->depth * nr), 1,
                          parts(part->columns, nr), part->steps * nr, w->kernel->b};
    pack_target target = {piece->room, 1, 1, 1, 0, p->kernel->b};
    p->loops->pack(&source, &target);
}

/* The block of B for columns jc.. and steps pc.. of the depth: of B itself, of the weights, or packed now. */
static void take_block_of_b(struct piece *piece, const weights_part *part)
{
    const product *p = piece->product;
    const struct ouigemm_packed *w = p->weights;
    const size_t bytes = element_bytes(p->kernel->b), step_bytes = p->kernel->nr * bytes;
    piece->pc = part->p;
    if (p->windows_in_place)
        piece->run = run_of_windows(p->call->windows, part->p);
    piece->b_group = (ptrdiff_t)(p->kernel->ka * step_bytes);
    if (p->b_in_place && part->columns % p->kernel->nr == 0) {
        const ptrdiff_t corner = (ptrdiff_t)part->p * p->call->b.row + (ptrdiff_t)part->j;
        piece->b = (const char *)p->call->b.data + corner * (ptrdiff_t)bytes;
        piece->b_panel = step_bytes;
        piece->b_group = p->call->b.row * (ptrdiff_t)bytes;
        piece->start = NULL;
    } else if (p->makes_b && part->steps) {
        int32_t *start = (int32_t *)(piece->room + p->blocks.kc * p->blocks.nc * element_bytes(p->kernel->b));
        piece->b = piece->room;
        piece->b_panel = part->steps * step_bytes;
        piece->start = p->shifted ? start : NULL;
        const int other = memcmp(part, &piece->packed, sizeof *part) != 0;
        if (other && p->call->packed)
            widen_block_of_b(piece, part);
        else if (other)
            weights_pack(w, &p->call->b, part, piece->room, p->shifted ? start : NULL);
        piece->packed = *part;
    } else {
        piece->b = w->panels + part->j / p->kernel->nr * w->depth * step_bytes + part->p * step_bytes;
        piece->b_panel = w->depth * step_bytes;
        piece->start = p->shifted && part->p == 0 && part->steps ? w->start + part->j : NULL;
    }
}

/* Where B is read once or little more, its way from memory is what takes the time: the first tile of a panel
   fetches what it will need itself, a little ahead. */
static void fetch_own(const product *p, ouigemm_tile_call *t, int first)
{
    t->ahead = (uintptr_t)t->b + (p->b_in_place ? AHEAD_IN_ROW : AHEAD_IN_PANEL);
    t->ahead_step = first ? (size_t)t->b_group : 0;
}

/* Otherwise the panel of B that comes next is fetched from beyond level 2 while this one is at work, a slice by every
   tile: no hardware foresees the jump. A small slice is fetched at once, a larger one by the kernel. */
static void fetch_slice(ouigemm_tile_call *t, size_t slice)
{
    t->ahead_step = slice <= FEW_LINES * LINE ? 0 : parts(slice, t->groups);
    for (size_t i = 0; i < slice && !t->ahead_step; i += LINE)
        __builtin_prefetch((const void *)(t->ahead + i), 0, 2);
    t->ahead += slice;
}

/* Loops jr and ir: a block of C, for one step of the depth. */
static void compute_block(struct piece *piece, const weights_part *part, int last)
{
    const product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    const size_t tiles = parts(piece->rows, u->mr);
    const size_t panel = part->steps * u->nr * element_bytes(u->b);
    char *sums = piece->sums;
    for (size_t j = 0; j < part->columns; j += u->nr) {
        const int more = !p->makes_b && part->j + j + u->nr < piece->j1;
        const size_t slice = more ? round_up(panel / tiles + 1, LINE) : 0;
        ouigemm_tile_call t = {
            .groups = part->steps / u->ka,
            .b = piece->b + j / u->nr * piece->b_panel,
            .b_group = piece->b_group,
            .start = piece->start ? piece->start + j : NULL,
            .accumulate = part->p > 0,
            .ahead = (uintptr_t)piece->b + (j / u->nr + 1) * piece->b_panel,
        };
        const uintptr_t end = t.ahead + panel;
        for (size_t ir = 0; ir < piece->rows; ir += u->mr) {
            if (p->streams_b)
                fetch_own(p, &t, ir == 0);
            else
                fetch_slice(&t, t.ahead < end ? slice : 0);
            point_at_a(piece, ir, &t);
            compute_tile(piece, &t, ir, part->j + j, sums, last);
            sums += p->one_step ? 0 : u->mr * u->nr * ACCUMULATOR;
        }
    }
}

/* The same with ir outside jr: whole rows of C are written one after the other. */
static void compute_rows(const struct piece *piece, const weights_part *part)
{
    const product *p = piece->product;
    const ouigemm_ukernel *u = p->kernel;
    ouigemm_tile_call t = {.groups = part->steps / u->ka, .b_group = piece->b_group};
    for (size_t ir = 0; ir < piece->rows; ir += u->mr) {
        point_at_a(piece, ir, &t);
        for (size_t j = 0; j < part->columns; j += u->nr) {
            t.b = piece->b + j / u->nr * piece->b_panel;
            t.start = piece->start ? piece->start + j : NULL;
            compute_tile(piece, &t, ir, part->j + j, piece->sums, 1);
        }
    }
}

/* Where nothing waits between steps of the depth and B stays close: in level 1 or little more. A matrix engine
   reads as much of A as of B, and so B may as well be what comes from level 2. */
static int goes_by_rows(const product *p, const weights_part *part)
{
    const ouigemm_ukernel *u = p->kernel;
    const size_t bytes = part->columns * part->steps * element_bytes(u->b);
    const size_t close = u->op_m > 1 ? ouigemm_cache_bytes(2) / 2 : 2 * ouigemm_cache_bytes(1);
    return p->one_step && part->columns > u->nr && bytes <= close;
}

/* Of the columns that are left: what a block of C holds, or whole panels of it, where B is read in place. */
static size_t columns_of_block(const product *p, size_t left)
{
    const size_t nr = p->kernel->nr, columns = least(p->blocks.nc, left);
    return p->b_in_place && columns > nr ? columns / nr * nr : columns;
}

/* Loops jc and pc. */
static void compute_piece(struct piece *piece)
{
    const product *p = piece->product;
    const size_t depth = p->depth ? p->weights->depth : 0, columns = piece->j1 - piece->j0;
    if (p->epilogue.output != OUIGEMM_ACCUMULATOR)
        epilogue_prepare(&p->epilogue, piece->j0, columns, round_up(columns, p->kernel->nr), piece->factor,
                         piece->bias);
    for (weights_part part = {.j = piece->j0}; part.j < piece->j1; part.j += part.columns) {
        part.columns = columns_of_block(p, piece->j1 - part.j);
        part.p = 0;
        do {
            part.steps = least(p->blocks.kc, depth - part.p);
            take_block_of_b(piece, &part);
            if (goes_by_rows(p, &part))
                compute_rows(piece, &part);
            else
                compute_block(piece, &part, part.p + part.steps == depth);
            part.p += p->blocks.kc;
        } while (part.p < depth);
    }
}

/* A piece that nobody else has or gets, or SIZE_MAX. */
static size_t take_piece(product *p, size_t index, size_t pieces)
{
    for (size_t r = index; r < index + p->ranges; r++) {
        const size_t range = r % p->ranges, first = range * pieces / p->ranges;
        const size_t count = (range + 1) * pieces / p->ranges - first;
        size_t i;
        if (atomic_load(&p->next[range]) < count && (i = atomic_fetch_add(&p->next[range], 1)) < count)
            return first + i;
    }
    return SIZE_MAX;
}

/* Loop ic: pieces, until there are none left. */
void product_compute(void *job, int index)
{
    product *p = job;
    const ouigemm_ukernel *u = p->kernel;
    const size_t row_blocks = parts(p->call->m, p->blocks.mc);
    const size_t waiting = p->one_step ? u->mr * u->nr : p->blocks.mc * least(p->blocks.nc, p->split);
    struct piece piece = {.product = p, .ic = SIZE_MAX};
    const size_t a_bytes = p->blocks.mc * p->pitch, tiles = parts(p->blocks.mc, u->mr);
    piece.a = buffer_of_thread(BUFFER_A, a_bytes + tiles * sizeof *piece.tiles);
    piece.sums = buffer_of_thread(BUFFER_C, waiting * ACCUMULATOR + 2 * p->split * sizeof(float));
    if (p->makes_b)
        piece.room = buffer_of_thread(BUFFER_B, p->blocks.nc * (p->blocks.kc * element_bytes(u->b) + ACCUMULATOR));
    if (!piece.a || !piece.sums || (p->makes_b && !piece.room)) {
        atomic_store(&p->out_of_memory, 1);
        return;
    }
    piece.tiles = (const char **)(piece.a + a_bytes);
    piece.factor = (float *)(piece.sums + waiting * ACCUMULATOR);
    piece.bias = piece.factor + p->split;
    if (u->begin)
        u->begin(u);
    for (size_t i; (i = take_piece(p, (size_t)index, row_blocks * p->splits)) != SIZE_MAX;) {
        size_t ic = i / p->splits * p->blocks.mc;
        piece.rows = least(p->blocks.mc, p->call->m - ic);
        piece.j0 = i % p->splits * p->split;
        piece.j1 = least(piece.j0 + p->split, p->call->n);
        if (ic != piece.ic) {
            piece.ic = ic;
            piece.in_place = least(piece.rows, p->in_place > ic ? p->in_place - ic : 0) / u->mr * u->mr;
            find_tiles(&piece);
            if (p->depth)
                pack_block_of_a(&piece);
        }
        compute_piece(&piece);
    }
    if (u->end)
        u->end();
}
