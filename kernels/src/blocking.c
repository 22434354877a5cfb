/* Block sizes from the caches, after Low et al. (2016), for loops that keep a block of C in place:

     level 2   one panel of B, kc x nr, takes an eighth: it is read again for every row panel. To hold it in
               level 1 and go through the depth in more steps costs more, in sums that come and go and rows
               of A that are cut short, than its way from level 2, which streams
     level 2   a block of A over the whole depth, mc x k, takes half: its rows are packed once, into
               whole cache lines, and read again for every column panel
     level 2   a block of C, mc x nc accumulators, takes a quarter, where k > kc makes it wait
     level 3   holds what it can of B, which is packed as a whole; nothing is sized by it, since a
               virtual machine cannot know it

   A block of A has at least 64 rows, however deep it is: B comes from beyond level 2 once per block,
   and 64 rows are what covers its way at 30 GB/s. */
#include "blocking.h"

#include "ladder.h"
#include "pack.h"
#include "sizes.h"

#include <pthread.h>
#include <unistd.h>

/* Rows of a strip, of 4 to 128 that were tried. In place, the fewer streams the better for memory, and the worse for
   sums, which come and go with every strip: that counts from nine rows of A on. */
enum { STRIP_IN_PLACE = 8, LONG_STRIP_IN_PLACE = 16, SHORT_STRIPS = 8, STRIP_PACKED = 32 };

enum { PIECE_OF_ROW = 2048 };  /* bytes, of 512 to 4,096 that were tried: from there on memory delivers most */

static size_t l1_bytes, l2_bytes;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static size_t clamp(long value, size_t low, size_t high, size_t unknown)
{
    if (value <= 0)
        return unknown;
    return (size_t)value < low ? low : (size_t)value > high ? high : (size_t)value;
}

/* Virtual machines report fictions now and then: what they say is held to the range of real cores. */
static void read_caches(void)
{
    long l1 = 0, l2 = 0;
#if defined(_SC_LEVEL1_DCACHE_SIZE)
    l1 = sysconf(_SC_LEVEL1_DCACHE_SIZE);
    l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
#endif
    l1_bytes = clamp(l1, 16 << 10, 128 << 10, 32 << 10);
    l2_bytes = clamp(l2, 256 << 10, 2 << 20, 512 << 10);
}

size_t ouigemm_cache_bytes(int level)
{
    pthread_once(&once, read_caches);
    return level == 1 ? l1_bytes : level == 2 ? l2_bytes : 0;
}

/* The smallest number of equal blocks of at most `most`, as the size of one, a multiple of `step`. */
static size_t even_blocks(size_t extent, size_t most, size_t step)
{
    most = most < step ? step : most / step * step;
    size_t count = extent ? parts(extent, most) : 1;
    size_t size = parts(extent, count);
    return size ? round_up(size, step) : step;
}

ouigemm_blocks blocking(const ouigemm_ukernel *u, size_t l2, size_t m, size_t n, size_t k)
{
    ouigemm_blocks blocks;
    blocks.kc = even_blocks(k, l2 / 8 / (u->nr * element_bytes(u->b)), u->ka);
    size_t row = (k * element_bytes(u->a) / LINE + 1) * LINE; /* as it is packed */
    size_t rows = l2 / 2 / row;
    blocks.mc = even_blocks(m, rows < FEWEST_ROWS ? FEWEST_ROWS : rows, u->mr);
    blocks.nc = even_blocks(n, k > blocks.kc ? l2 / 4 / (blocks.mc * ACCUMULATOR) : n, u->nr);
    return blocks;
}

/* Each row of a strip is read from end to end, as memory likes it, and all together are as many streams as hardware
   fetches ahead. Sums wait in a quarter of level 2 meanwhile, and a strip that is packed takes another. */
void strips_of_rows(ouigemm_blocks *blocks, const ouigemm_ukernel *u, size_t l2, size_t m, int in_place)
{
    const size_t rows = !in_place ? STRIP_PACKED : m > SHORT_STRIPS ? LONG_STRIP_IN_PLACE : STRIP_IN_PLACE;
    blocks->kc = round_up(least(blocks->kc, rows), u->ka);
    size_t sums = l2 / 4 / (blocks->mc * ACCUMULATOR), strip = l2 / 4 / (blocks->kc * element_bytes(u->b));
    blocks->nc = (in_place ? sums : least(sums, strip)) / u->nr * u->nr;
}

size_t columns_at_once(const ouigemm_ukernel *u, size_t n)
{
    size_t panels = PIECE_OF_ROW / (u->nr * element_bytes(u->b));
    return least(parts(n, u->nr), panels ? panels : 1) * u->nr;
}

/* A block takes three quarters of level 2, and is rather deep than wide: packed panels lie side by side anyway. */
void blocks_widened_in_turn(ouigemm_blocks *blocks, const ouigemm_ukernel *u, size_t l2)
{
    const size_t panel = blocks->kc * u->nr * element_bytes(u->b); /* an eighth of level 2 at most */
    blocks->nc = least(blocks->nc, l2 * 3 / 4 / panel * u->nr);
}

/* A block takes half of level 2, beside the sums, and is rather wide than deep. */
void blocks_packed_in_turn(ouigemm_blocks *blocks, const ouigemm_ukernel *u, size_t l2, size_t n, size_t k)
{
    const size_t columns = columns_at_once(u, least(n, blocks->nc));
    blocks->kc = even_blocks(k, least(blocks->kc, l2 / 2 / (columns * element_bytes(u->b))), u->ka);
    const size_t sums = k > blocks->kc ? l2 / 4 / (blocks->mc * ACCUMULATOR) / u->nr * u->nr : columns;
    blocks->nc = sums < u->nr ? u->nr : least(columns, sums);
}

ouigemm_blocks ouigemm_block_sizes(ouigemm_type type, int rung, size_t m, size_t n, size_t k, size_t l2)
{
    const ouigemm_ukernel *const *family = ladder_family(type, rung);
    if (!family)
        return (ouigemm_blocks){0, 0, 0};
    const ouigemm_ukernel *u = ladder_pick_height(family, ladder_pick_width(family, n)->nr, m);
    return blocking(ladder_pick_wide(u, m), l2, m, n, k);
}
