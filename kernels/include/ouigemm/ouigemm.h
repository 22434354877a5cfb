/* ouigemm: matrix products of small types on CPUs, C interface.

   C = epilogue(A B): A is m x k, B is k x n, C is m x n, and each of them may have any two strides,
   counted in elements. Sums of integers are exact modulo 2^32 on every rung; 8-bit sums cannot
   overflow for k < 65794 (u8 x s8) and k < 131072 (s8 x s8). */
#ifndef OUIGEMM_H
#define OUIGEMM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The types of A and B; the accumulator is f32 for the first two and s32 for the others. */
typedef enum ouigemm_type {
    OUIGEMM_F32,
    OUIGEMM_BF16,
    OUIGEMM_S16,
    OUIGEMM_S32,
    OUIGEMM_U8S8,
    OUIGEMM_S8S8,
    OUIGEMM_TYPES
} ouigemm_type;

/* What becomes of the sums T before they reach C. */
typedef enum ouigemm_output {
    OUIGEMM_ACCUMULATOR,  /* C = alpha T + beta C, in the accumulator's type                      */
    OUIGEMM_SCALED,       /* C = act(alpha scale[j] T + bias[j] + beta C), in f32                 */
    OUIGEMM_S8,           /* C = clamp(round(act(alpha scale[j] T + bias[j] + beta (C - zero_point)))
                             + zero_point), in s8; round is to the nearest, ties to even            */
    OUIGEMM_U8            /* the same in u8                                                       */
} ouigemm_output;

typedef enum ouigemm_status {
    OUIGEMM_OK,
    OUIGEMM_NO_MEMORY,
    OUIGEMM_NOT_AVAILABLE,
    OUIGEMM_C_OVERLAPS_A,  /* nothing has been written */
    OUIGEMM_C_OVERLAPS_B
} ouigemm_status;

typedef struct ouigemm_matrix {
    const void *data;
    ptrdiff_t row, col;  /* distance between neighbours, in elements */
} ouigemm_matrix;

/* An A whose rows are windows of images, which are read where they lie: m = images * height * width, in this order,
   and k = rows * columns * run. A run is what lies side by side in a window: the channels of one pixel, or of all the
   pixels of a row, if they are neighbours, which are then one column. Steps are distances in elements; a.row is the
   one from window to window of a line, and a.col is not looked at. */
typedef struct ouigemm_windows {
    size_t height;          /* lines of windows in an image */
    size_t width;           /* windows in a line */
    size_t columns;         /* of a window */
    size_t run;             /* numbers side by side in a column */
    ptrdiff_t image_step;
    ptrdiff_t line_step;
    ptrdiff_t row_step;     /* from row to row of a window */
    ptrdiff_t column_step;
} ouigemm_windows;

typedef struct ouigemm_epilogue {
    ouigemm_output output;
    double alpha, beta;   /* whole numbers where C is s32; with beta = 0 C is not read */
    const float *scale;   /* n values, or one where scale_step is 0 */
    size_t scale_step;    /* 0 or 1 */
    const float *bias;    /* n values, or NULL for none */
    int relu;             /* act is max(x, 0), else the identity */
    int32_t zero_point;
} ouigemm_epilogue;

/* B in the layout of one micro-kernel, to be used many times. What is packed for s8 x s8 also serves
   u8 x s8. */
typedef struct ouigemm_packed ouigemm_packed;

typedef struct ouigemm_call {
    ouigemm_type type;
    int rung;                      /* index into the ladder, or OUIGEMM_AUTO */
    int threads;                   /* at most so many; small problems take fewer */
    size_t m, n, k;
    ouigemm_matrix a, b;
    const ouigemm_windows *windows;  /* what the rows of A are, unless NULL */
    const ouigemm_packed *packed;  /* used in the place of b and rung unless NULL */
    void *c;
    ptrdiff_t c_row, c_col;
    ouigemm_epilogue epilogue;
} ouigemm_call;

#define OUIGEMM_AUTO (-1)

ouigemm_status ouigemm_gemm(const ouigemm_call *call);

ouigemm_status ouigemm_pack(ouigemm_type type, int rung, size_t k, size_t n, const ouigemm_matrix *b,
                            ouigemm_packed **packed);
void ouigemm_packed_free(ouigemm_packed *packed);
size_t ouigemm_packed_bytes(const ouigemm_packed *packed);
/* The micro-kernel that m rows of A run on with these weights; of what is packed for s8 x s8, rows of s8. */
const char *ouigemm_packed_kernel(const ouigemm_packed *packed, size_t m);

/* All pairs of `rows` rows of `words` words: distances[i * rows + j] = bits in which i and j differ. */
ouigemm_status ouigemm_hamming(const uint64_t *bits, size_t rows, size_t words, int rung, int threads,
                               int64_t *distances);

/* The ladder, best rung first. `absent` says why a rung cannot be used here, NULL if it can. */
int ouigemm_rung_count(void);
const char *ouigemm_rung_name(int rung);
const char *ouigemm_rung_absent(int rung);
/* The micro-kernel that a product of this shape runs on, unless ouigemm_packed_kernel() knows a quicker one; NULL
   where the rung is absent. */
const char *ouigemm_kernel_name(ouigemm_type type, int rung, size_t m, size_t n);
/* Whether a rung has quicker kernels for a packed B of 8 bits in which no row of an even number and the next add up to
   more than 128 or less than -128. */
int ouigemm_adds_pairs(int rung);
/* Runs the instruction of that kernel on registers alone. Returns the multiplications and additions done
   in `rounds` rounds, 0 where nothing can be run, and the name of the instruction. */
double ouigemm_run_stream(ouigemm_type type, int rung, size_t rounds, const char **instruction);
/* The rung that Hamming distances run on. */
const char *ouigemm_hamming_rung(int rung);
/* Micro-kernels of one rung, one after the other; NULL at the end. */
const char *ouigemm_rung_kernel(int rung, ouigemm_type type, int index);

/* Features of CPU and operating system, by number; NULL after the last. */
const char *ouigemm_cpu_feature(int number, int *present);
/* Whether the AMX kernels run on a model in C instead of on AMX: a build for tests. */
int ouigemm_tiles_are_modelled(void);

/* Block sizes of the loops for a level-2 cache of `l2` bytes, as the model in blocking.c gives them. */
typedef struct ouigemm_blocks {
    size_t mc, nc, kc;
} ouigemm_blocks;
ouigemm_blocks ouigemm_block_sizes(ouigemm_type type, int rung, size_t m, size_t n, size_t k,
                                   size_t l2);

/* Bytes of one core's level-1 and level-2 data cache, as the model uses them. */
size_t ouigemm_cache_bytes(int level);

#ifdef __cplusplus
}
#endif
#endif
