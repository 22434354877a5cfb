/* Plans a product: kernel, blocks, and which thread does what. The loops are in loops.c. */
#include "blocking.h"
#include "buffer.h"
#include "ladder.h"
#include "overlap.h"
#include "pack.h"
#include "pool.h"
#include "product.h"
#include "sizes.h"
#include "weights.h"

enum { SMALLEST_SHARE = 1 << 21, ALIASING_STRIDE = 4096, MANY_COLUMNS = 1024 };
enum { FEW_ROWS = 16, FEW_ROWS_NEAR = 32, FEW_PANELS = 4 };
enum { LONG_RUN = 16 };  /* groups of ka: 64 bytes, for most kernels */

/* How many rows of a matrix A are read in place, which saves their packing. It wants consecutive k in the kernel's own
   type; and where all rows fall into the same few sets of the cache, so few columns that packing would not pay.
   A group of k that reaches into the row behind meets zeros of B there: right for integers, but a float may be no
   number. The last rows have none behind them. */
static size_t rows_in_place(const ouigemm_call *call, const ouigemm_ukernel *u, size_t depth)
{
    const size_t row = call->a.row > 0 ? (size_t)call->a.row : 0, beyond = round_up(depth, u->ka) - depth;
    const int aliases = row * element_bytes(u->a) % ALIASING_STRIDE == 0 && call->n >= MANY_COLUMNS;
    if (call->windows || u->a != element_of_a(call->type) || call->a.col != 1 || aliases)
        return 0;
    if (beyond == 0)
        return call->m;
    size_t last = row ? parts(beyond, row) : call->m;
    return call->type >= OUIGEMM_S16 && last < call->m ? call->m - last : 0;
}

/* Windows are read run by run, and a tile comes and goes with every run: that pays for long ones. */
static int reads_windows_in_place(const ouigemm_call *call, const ouigemm_ukernel *u)
{
    const ouigemm_windows *w = call->windows;
    return w && u->a == element_of_a(call->type) && w->run % u->ka == 0 && w->run / u->ka >= LONG_RUN;
}

static size_t bytes_of_b(const product *p)
{
    return p->call->n * p->depth * element_bytes(p->kernel->b);
}

static int widens_b(const product *p)
{
    return p->kernel->b != p->weights->kernel->b;
}

/* Whether B is read where it lies: for few rows of A a copy costs more than it saves, and for some more where B is
   in level 2. It takes the kernel's own type, one step of k at a time, and rows whose columns lie side by side. */
static int reads_b_in_place(const product *p)
{
    const ouigemm_call *call = p->call;
    const ouigemm_ukernel *u = p->kernel;
    const size_t few = bytes_of_b(p) > ouigemm_cache_bytes(2) ? FEW_ROWS : FEW_ROWS_NEAR;
    return !call->packed && call->m <= few && u->kr == 1 && u->ka == 1 &&
           u->b == element_of_b(call->type) && call->b.col == 1;
}

/* Whether B is read, or packed, some rows at a time, each from end to end: for few rows of A, where it comes from
   beyond level 2. */
static int goes_in_strips(const product *p)
{
    const ouigemm_call *call = p->call;
    return !call->packed && call->m <= FEW_ROWS && call->b.col == 1 && bytes_of_b(p) > ouigemm_cache_bytes(2);
}

/* Rows first, since every piece packs its own rows, as long as there are enough of them to pay for reading B
   once more; then columns, until all threads have work. */
static int share_out(product *p)
{
    const ouigemm_call *call = p->call;
    const size_t mr = p->kernel->mr, nr = p->kernel->nr;
    size_t work = call->m * call->n * (p->depth + 1) / SMALLEST_SHARE + 1;
    size_t threads = least(work, call->threads > 1 ? (size_t)call->threads : 1);
    size_t panels = parts(call->n, nr), each = panels;
    if (threads > 1) {
        size_t rows = call->m / (2 * threads) + 1;
        size_t most = least(p->blocks.mc, rows < FEWEST_ROWS ? FEWEST_ROWS : rows);
        size_t row_blocks = parts(call->m, most);
        p->blocks.mc = round_up(parts(call->m, row_blocks), mr);
        each = parts(panels, parts(2 * threads, row_blocks));
    }
    p->ranges = least(threads, MOST_RANGES);
    p->split = each * nr;
    p->splits = parts(panels, each);
    p->makes_b = call->packed ? widens_b(p) : call->m <= p->blocks.mc || bytes_of_b(p) <= ouigemm_cache_bytes(1);
    return (int)threads;
}

/* Threads have no say in kc, which decides in what order sums are made. */
static void size_blocks(product *p)
{
    const ouigemm_call *call = p->call;
    const size_t l2 = ouigemm_cache_bytes(2);
    p->blocks = blocking(p->kernel, l2, call->m, call->n, p->depth);
    if (p->in_strips)
        strips_of_rows(&p->blocks, p->kernel, l2, call->m, p->b_in_place);
    else if (widens_b(p))
        blocks_widened_in_turn(&p->blocks, p->kernel, l2);
    else if (call->packed && parts(call->m, p->kernel->mr) == 1) /* a panel is read once: from end to end */
        p->blocks.kc = p->weights->depth;
    else if (!call->packed && !p->b_in_place && call->m <= p->blocks.mc)
        blocks_packed_in_turn(&p->blocks, p->kernel, l2, call->n, p->depth);
    p->one_step = p->depth <= p->blocks.kc;
}

static void plan(product *p)
{
    const ouigemm_call *call = p->call;
    const ouigemm_epilogue *e = &p->epilogue;
    p->kernel = weights_kernel(p->weights, call->type, call->m);
    p->loops = ladder_loops(p->weights->rung);
    p->b_in_place = reads_b_in_place(p);
    p->in_strips = goes_in_strips(p);
    p->streams_b = (call->packed || p->b_in_place) && parts(call->m, p->kernel->mr) <= FEW_PANELS;
    size_blocks(p);
    p->in_place = rows_in_place(call, p->kernel, p->depth);
    p->windows_in_place = reads_windows_in_place(call, p->kernel);
    p->by_rows = call->windows || call->a.col == 1;
    p->shifted = weights_shifted(p->weights) && p->kernel->a != element_of_a(call->type);
    p->pitch = round_up(p->weights->depth * element_bytes(p->kernel->a), LINE);
    p->pitch += p->pitch % (ALIASING_STRIDE / 8) == 0 ? LINE : 0;
    p->direct = e->output == OUIGEMM_ACCUMULATOR && e->alpha == 1 && (e->beta == 0 || e->beta == 1) &&
                call->c_col == 1;
}

/* Whether Cᵀ = Bᵀ Aᵀ is the better product: where the columns of B, as in a layer's weights, are what lies
   consecutive, few rows of A do not pay for turning B round in its packing, but its columns can be read as rows.
   An epilogue that knows columns keeps them. */
static int better_turned(const ouigemm_call *call)
{
    const ouigemm_epilogue *e = &call->epilogue;
    const int no_columns = e->output == OUIGEMM_ACCUMULATOR || (!e->scale_step && !e->bias);
    return !call->packed && !call->windows && call->type != OUIGEMM_U8S8 && call->m <= FEW_ROWS && call->m < call->n &&
           call->b.row == 1 && call->b.col != 1 && no_columns;
}

static ouigemm_call turned(const ouigemm_call *call)
{
    ouigemm_call t = *call;
    t.m = call->n;
    t.n = call->m;
    t.a = (ouigemm_matrix){call->b.data, call->b.col, call->b.row};
    t.b = (ouigemm_matrix){call->a.data, call->a.col, call->a.row};
    t.c_row = call->c_col;
    t.c_col = call->c_row;
    return t;
}

ouigemm_status ouigemm_gemm(const ouigemm_call *call)
{
    product p = {.call = call, .weights = call->packed, .epilogue = call->epilogue};
    p.depth = p.epilogue.alpha == 0 ? 0 : call->k;
    if (call->m == 0 || call->n == 0)
        return OUIGEMM_OK;
    ouigemm_status status = check_overlap(call);
    if (status != OUIGEMM_OK)
        return status;
    const ouigemm_call other = turned(call);
    if (better_turned(call))
        p.call = call = &other;
    struct ouigemm_packed passing;
    if (!p.weights) {
        status = weights_plan(&passing, ONE_PRODUCT, call->type, call->rung, p.depth, call->n);
        if (status != OUIGEMM_OK)
            return status;
        p.weights = &passing;
    }
    plan(&p);
    int threads = share_out(&p);
    if (!call->packed && !p.makes_b) {
        void *memory = buffer_of_thread(BUFFER_B, passing.bytes);
        if (!memory)
            return OUIGEMM_NO_MEMORY;
        weights_fill(&passing, &call->b, memory, threads);
    }
    pool_run(threads, product_compute, &p);
    return p.out_of_memory ? OUIGEMM_NO_MEMORY : OUIGEMM_OK;
}
