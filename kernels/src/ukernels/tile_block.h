/* The micro-kernel of AMX: four tiles of C as 2 x 2 or 4 x 1, which hide the latency of one product; 2 x 2
   loads least. With 16 rows or fewer, where B comes from far away, latency does not matter, and 1 x 2 takes
   what is packed for 2 x 2. The including file defines MR, NR and INSTRUCTION.

   Nothing is fetched ahead: it stood in the way of the loads of tiles, and B is one stream where the depth is
   one step.

   A tile of A is 16 rows of 64 bytes of k, a tile of B is 16 groups of k by 16 columns: a panel of B
   is the one that the vector kernels of the same width use. */
#include "tiles.h"

enum { TILES = MR * NR / (TILE_ROWS * 16) };
_Static_assert(TILES == 4 || (TILES == 2 && NR == 32), "2 x 2, 4 x 1 or 1 x 2 tiles");

#define A_TILE(r) (a + (r) * TILE_ROWS * t->a_row)
#define B_TILE(v) (b + (v) * TILE_ROW_BYTES)
#define C_TILE(r, v) ((char *)t->c + (r) * TILE_ROWS * t->c_row + (v) * TILE_ROW_BYTES)
#define COLUMN_TILES (NR / 16)
#define C_REGISTER(i) C_TILE((i) / COLUMN_TILES, (i) % COLUMN_TILES)
#define PRODUCT(c, a, b) TILE_PRODUCT(INSTRUCTION, c, a, b)

static void run(const ouigemm_tile_call *t)
{
    const char *a = t->a, *b = t->b;
    const ptrdiff_t b_row = NR * 4;

    if (t->accumulate) {
        TILE_LOAD(0, C_REGISTER(0), t->c_row);
        TILE_LOAD(1, C_REGISTER(1), t->c_row);
#if MR > 16
        TILE_LOAD(2, C_REGISTER(2), t->c_row);
        TILE_LOAD(3, C_REGISTER(3), t->c_row);
#endif
    } else {
        TILE_ZERO(0);
        TILE_ZERO(1);
        TILE_ZERO(2);
        TILE_ZERO(3);
    }

    for (size_t g = 0; g < t->groups; g++, a += t->a_group, b += t->b_group) {
#if MR == 16
        TILE_LOAD(6, B_TILE(0), b_row);
        TILE_LOAD(4, A_TILE(0), t->a_row);
        PRODUCT(0, 4, 6);
        TILE_LOAD(7, B_TILE(1), b_row);
        PRODUCT(1, 4, 7);
#elif MR == 32
        TILE_LOAD(6, B_TILE(0), b_row);
        TILE_LOAD(4, A_TILE(0), t->a_row);
        PRODUCT(0, 4, 6);
        TILE_LOAD(7, B_TILE(1), b_row);
        PRODUCT(1, 4, 7);
        TILE_LOAD(5, A_TILE(1), t->a_row);
        PRODUCT(2, 5, 6);
        PRODUCT(3, 5, 7);
#else
        TILE_LOAD(6, B_TILE(0), b_row);
        TILE_LOAD(4, A_TILE(0), t->a_row);
        PRODUCT(0, 4, 6);
        TILE_LOAD(5, A_TILE(1), t->a_row);
        PRODUCT(1, 5, 6);
        TILE_LOAD(4, A_TILE(2), t->a_row);
        PRODUCT(2, 4, 6);
        TILE_LOAD(5, A_TILE(3), t->a_row);
        PRODUCT(3, 5, 6);
#endif
    }

    TILE_STORE(0, C_REGISTER(0), t->c_row);
    TILE_STORE(1, C_REGISTER(1), t->c_row);
#if MR > 16
    TILE_STORE(2, C_REGISTER(2), t->c_row);
    TILE_STORE(3, C_REGISTER(3), t->c_row);
#endif
}

#define TILE_UKERNEL(isa, types, a_element, b_element, b_group)                                        \
    const ouigemm_ukernel OUIGEMM_UKERNEL_SYMBOL(isa, types, MR, NR) = {                               \
        .name = OUIGEMM_UKERNEL_NAME(isa, types, MR, NR),                                              \
        .a = a_element,                                                                                \
        .b = b_element,                                                                                \
        .mr = MR,                                                                                      \
        .nr = NR,                                                                                      \
        .kr = b_group,                                                                                 \
        .ka = 16 * b_group,                                                                            \
        .op_m = TILE_ROWS,                                                                             \
        .op_n = 16,                                                                                    \
        .in_flight = 4,                                                                                \
        .run = run,                                                                                    \
        .begin = tiles_begin,                                                                          \
        .end = tiles_end,                                                                              \
    };
