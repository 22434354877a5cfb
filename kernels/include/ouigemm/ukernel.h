/* The micro-kernel contract: all that the loops and an instruction set know of each other.

   A micro-kernel multiplies one panel of A (mr rows) by one panel of B (nr columns) over `groups`
   groups of ka steps of k, into a tile of C:

       C[i][j] = (accumulate ? C[i][j] : 0) + start[j] + sum over p of A[i][p] B[p][j]

   B panel    zero-padded steps of k in groups of kr, which are 4 bytes of a column (8 for matrix
              instructions of two columns, one element in plain C, 2 where the kernel widens B): the nr columns
              of a group lie side by side, and ka steps begin b_group bytes after the last ka. Packed panels are
              64-byte aligned, with one group behind the other; where kr = 1, rows of a matrix are read where
              they lie.
   A panel    group g of row i begins at a + i * a_row + g * a_group (bytes) and holds ka elements one
              after the other. Packed panels have a_row = ka elements and a_group = mr rows; a matrix
              with consecutive k is read where it lies; strides of 0 repeat one group.
   C tile     mr x nr accumulators of 4 bytes, row-major, rows c_row bytes apart. It is read only if
              `accumulate` is set, and never beyond its mr x nr elements.
   start      nr accumulators, or NULL for zeros. Only kernels that take s8 as u8, or u8 as s8, get one:
              it makes up for the 128 times the column sums of B.

   ahead      what will be wanted next, in the second cache: group g may fetch ahead_step bytes from
              ahead + g * ahead_step on. A kernel may ignore it, and no address there need exist.

   Every tile is full: edges are the business of the loops. Integers wrap modulo 2^32. */
#ifndef OUIGEMM_UKERNEL_H
#define OUIGEMM_UKERNEL_H

#include "ouigemm.h"

typedef enum ouigemm_element {
    OUIGEMM_E_F32,
    OUIGEMM_E_BF16,
    OUIGEMM_E_S16,
    OUIGEMM_E_S32,
    OUIGEMM_E_U8,
    OUIGEMM_E_S8
} ouigemm_element;

typedef struct ouigemm_tile_call {
    size_t groups;
    const void *a;
    ptrdiff_t a_row, a_group;
    const void *b;
    ptrdiff_t b_group;
    void *c;
    ptrdiff_t c_row;
    const int32_t *start;
    int accumulate;
    uintptr_t ahead;
    size_t ahead_step;
} ouigemm_tile_call;

typedef struct ouigemm_ukernel {
    const char *name;         /* <isa>/<in>_<acc>_<mr>x<nr> */
    ouigemm_element a, b;     /* what the panels hold; packing converts from the matrices' types */
    size_t mr, nr, kr, ka;
    size_t op_m, op_n;        /* the part of the tile that one instruction updates */
    size_t in_flight;         /* independent instructions that hide the latency of one */
    size_t spilled;           /* vectors without a register: loaded and stored in every step */
    const struct ouigemm_ukernel *wide;  /* the same tile for a B that has been widened to A's type, or NULL */
    void (*run)(const ouigemm_tile_call *);
    void (*begin)(const struct ouigemm_ukernel *);  /* once per thread before and after a run of */
    void (*end)(void);                              /* tiles, or NULL: matrix engines need it    */
} ouigemm_ukernel;

/* The instruction of a family on registers alone, to measure what a core can do at most: a round is so
   many multiplications and additions. */
typedef struct ouigemm_stream {
    const char *instruction;
    size_t operations;
    void (*run)(size_t rounds);
} ouigemm_stream;

/* Counts the bits in which rows of a and rows of b differ, for 4 rows of each: counts[i][j] += … over
   `lines` lines of 64 bytes; the rows of both lie row_words words apart, 64-byte aligned. */
typedef void ouigemm_hamming_tile(size_t lines, const uint64_t *a, const uint64_t *b, size_t row_words,
                                  uint64_t counts[4][4]);

/* What surrounds the kernels and gains from wide registers too: see pack.h and epilogue.h. */
struct pack_source;
struct pack_target;
struct epilogue_tile;
typedef void ouigemm_pack_panels(const struct pack_source *, const struct pack_target *);
typedef void ouigemm_epilogue_store(const ouigemm_epilogue *, int integer_sums, const struct epilogue_tile *);

/* A rung of the ladder: a level of CPU. Where it has no kernels for a type (NULL), but some for the wider type
   that packing can make of it, those serve: f32 for bf16, 16 bits for 8. What it does nothing for is left to the
   next lower rung. */
typedef struct ouigemm_rung {
    const char *name;
    uint32_t needs;       /* features of cpu.h */
    uint32_t auto_needs;  /* further features without which it is slower than the rung below */
    const ouigemm_ukernel *const *kernels[OUIGEMM_TYPES];  /* NULL-terminated families */
    const ouigemm_ukernel *const *pairs;  /* a quicker family for both 8-bit types, or NULL: right where B, as
                                             weights_fit_pairs() in weights.c says, cannot overflow it */
    const ouigemm_stream *streams[OUIGEMM_TYPES];  /* of the same types; NULL where there is none */
    ouigemm_hamming_tile *hamming;
    ouigemm_pack_panels *pack;
    ouigemm_epilogue_store *epilogue;
} ouigemm_rung;

/* Defines the descriptor of the kernel in this file: ouigemm_<isa>_<in>_<acc>_<mr>x<nr>. */
#define OUIGEMM_UKERNEL_1(isa, types, m, n) ouigemm_##isa##_##types##_##m##x##n
#define OUIGEMM_UKERNEL_SYMBOL(isa, types, m, n) OUIGEMM_UKERNEL_1(isa, types, m, n)
#define OUIGEMM_UKERNEL_2(isa, types, m, n) #isa "/" #types "_" #m "x" #n
#define OUIGEMM_UKERNEL_NAME(isa, types, m, n) OUIGEMM_UKERNEL_2(isa, types, m, n)

#endif
