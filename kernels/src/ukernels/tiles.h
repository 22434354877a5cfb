/* AMX: tile registers as assembler instructions.

   gcc 12 declares only 8 of the 64 bytes that _tile_loadconfig reads, and no memory that _tile_loadd
   reads: its intrinsics lose stores. Register numbers are constants in the instruction, hence macros.

   Registers: 0-3 hold a tile of C, 4 and 5 of A, 6 and 7 of B. */
#ifndef OUIGEMM_TILES_H
#define OUIGEMM_TILES_H

#include "ouigemm/ukernel.h"

enum { TILE_ROWS = 16, TILE_ROW_BYTES = 64, TILE_REGISTERS = 8 };

struct tile_configuration {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

#ifdef OUIGEMM_TILE_MODEL
#include "tile_model.h"
#else
#define TILE_CONFIGURE(configuration) __asm__ volatile("ldtilecfg %0" ::"m"(*(configuration)))
#define TILE_RELEASE() __asm__ volatile("tilerelease" ::: "memory")
#define TILE_ZERO(c) __asm__ volatile("tilezero %%tmm" #c ::)
#define TILE_LOAD(t, p, stride)                                                                        \
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm" #t ::"r"(p), "r"((ptrdiff_t)(stride)) : "memory")
#define TILE_STORE(t, p, stride)                                                                       \
    __asm__ volatile("tilestored %%tmm" #t ", (%0,%1,1)" ::"r"(p), "r"((ptrdiff_t)(stride)) : "memory")
#define TILE_PRODUCT(instruction, c, a, b) TILE_PRODUCT_1(instruction, c, a, b)
#define TILE_PRODUCT_1(instruction, c, a, b)                                                           \
    __asm__ volatile(#instruction " %%tmm" #b ", %%tmm" #a ", %%tmm" #c ::)
#endif

/* Eight whole tiles. Kept until `end`: to configure takes as long as a small product. */
static inline void tiles_begin(const ouigemm_ukernel *unused)
{
    (void)unused;
    struct tile_configuration configuration = {.palette = 1};
    for (int t = 0; t < TILE_REGISTERS; t++) {
        configuration.row_bytes[t] = TILE_ROW_BYTES;
        configuration.rows[t] = TILE_ROWS;
    }
    TILE_CONFIGURE(&configuration);
}

static inline void tiles_end(void)
{
    TILE_RELEASE();
}

#endif
