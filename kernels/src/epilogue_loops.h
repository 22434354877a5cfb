/* The loops of the epilogues, compiled once per register width. The including file defines
     EPILOGUE_STORE   name of the one function that it gives away
     EPILOGUE_LANES   columns that are worked on together; divides the width of every tile
   and may define EPILOGUE_GREATER, EPILOGUE_LESSER, EPILOGUE_WIDEN (bytes without sign to s32) and
   EPILOGUE_NARROW (the low bytes of s32) where the registers have instructions that gcc does not find.

   Rows of sums are as wide as the tile, whatever of it lies in C: the loops below always work on whole
   groups of lanes, and only the last step looks where C ends.

   Products and sums are rounded one by one (no contraction into FMA: see CMakeLists.txt): results do
   not depend on the rung, the tile or the thread. */
#include "epilogue.h"

#include <math.h>
#include <string.h>

enum { LANES = EPILOGUE_LANES };

#define INLINE static inline __attribute__((always_inline))

/* As wide as the registers of the rung: loops over lanes would be unrolled before they are vectorised. */
typedef float floats __attribute__((vector_size(4 * EPILOGUE_LANES)));
typedef int32_t ints __attribute__((vector_size(4 * EPILOGUE_LANES)));
typedef uint8_t bytes __attribute__((vector_size(EPILOGUE_LANES)));

/* x where the mask has all bits set, y where it has none. */
INLINE ints choose(ints mask, ints x, ints y)
{
    return (mask & x) | (~mask & y);
}

INLINE floats choose_float(ints mask, floats x, floats y)
{
    return (floats)choose(mask, (ints)x, (ints)y);
}

INLINE floats all(float x)
{
    return x - (floats){0};
}

INLINE floats load(const float *from)
{
    floats x;
    memcpy(&x, from, sizeof x);
    return x;
}

/* x = alpha scale T + bias. */
INLINE floats scaled(const epilogue_tile *t, int integer_sums, size_t row, size_t j)
{
    const char *from = (const char *)t->sums + (row * t->sums_row + j) * 4;
    floats x;
    if (integer_sums) {
        ints sums;
        memcpy(&sums, from, sizeof sums);
        x = __builtin_convertvector(sums, floats);
    } else {
        memcpy(&x, from, sizeof x);
    }
    x *= load(t->factor + j);
    return x + load(t->bias + j);
}

/* x > y ? x : y, and x < y ? x : y: the second where one is no number. */
#ifndef EPILOGUE_GREATER
#define EPILOGUE_GREATER(x, y) choose_float((x) > (y), x, y)
#define EPILOGUE_LESSER(x, y) choose_float((x) < (y), x, y)
#endif

#ifndef EPILOGUE_WIDEN
#define EPILOGUE_WIDEN(x) __builtin_convertvector(x, ints)
#define EPILOGUE_NARROW(x) __builtin_convertvector(x, bytes)
#endif

/* max(x, floor); a NaN stays one. */
INLINE floats activate(floats x, floats floor)
{
    return (floats)EPILOGUE_GREATER(floor, x);
}

/* The same for the first of some numbers, one by one; apart, so that the loops above it stay tight. */
static __attribute__((noinline)) void store_scaled_ends(const floats *from, size_t count, float beta, float floor,
                                                        float *c, ptrdiff_t c_col)
{
    for (size_t l = 0; l < LANES && l < count; l++, c += c_col) {
        float x = beta != 0 ? (*from)[l] + beta * *c : (*from)[l];
        *c = floor > x ? floor : x;
    }
}

INLINE void store_scaled(const ouigemm_epilogue *e, int integer_sums, const epilogue_tile *t)
{
    const float beta = (float)e->beta, floor = e->relu ? 0 : -INFINITY;
    const floats floors = all(floor);
    const size_t whole = t->c_col == 1 ? t->columns / LANES * LANES : 0;
    float *c = t->c;
    for (size_t i = 0; i < t->rows; i++, c += t->c_row) {
        for (size_t j = 0; j < whole; j += LANES) {
            floats x = scaled(t, integer_sums, i, j);
            x = activate(beta != 0 ? x + beta * load(c + j) : x, floors);
            memcpy(c + j, &x, sizeof x);
        }
        for (size_t j = whole; j < t->columns; j += LANES) {
            floats x = scaled(t, integer_sums, i, j);
            store_scaled_ends(&x, t->columns - j, beta, floor, c + (ptrdiff_t)j * t->c_col, t->c_col);
        }
    }
}

/* Clamp, round and shift; the ends are whole numbers, and so clamping first changes nothing. NaN becomes
   the lower end. Within +-2^22 the addition of 1.5 * 2^23 leaves no bits for the fraction: it rounds to the
   nearest even, and what its bits are more than those of 1.5 * 2^23 is the number. */
INLINE bytes quantise(floats x, floats least, floats most, floats magic, ints shift)
{
    x = (floats)EPILOGUE_GREATER(x, least);
    x = (floats)EPILOGUE_LESSER(x, most);
    return EPILOGUE_NARROW((ints)(x + magic) + shift);
}

/* The first of some bytes, one by one. */
static __attribute__((noinline)) void load_ends(bytes *to, size_t count, const uint8_t *c, ptrdiff_t c_col)
{
    for (size_t l = 0; l < LANES && l < count; l++)
        (*to)[l] = c[(ptrdiff_t)l * c_col];
}

static __attribute__((noinline)) void store_ends(const bytes *from, size_t count, uint8_t *c, ptrdiff_t c_col)
{
    for (size_t l = 0; l < LANES && l < count; l++)
        c[(ptrdiff_t)l * c_col] = (*from)[l];
}

/* Turning the highest bit of s8 makes it u8, 128 higher; what is u8 stays. */
INLINE ints turn_of(const ouigemm_epilogue *e)
{
    return (ints){0} + (e->output == OUIGEMM_S8 ? 128 : 0);
}

/* What bytes of C stand for, less the zero point. zero: turn + zero point. */
INLINE floats less_zero(bytes c, ints turn, ints zero)
{
    return __builtin_convertvector((EPILOGUE_WIDEN(c) ^ turn) - zero, floats);
}

/* adds: whether beta is not 0. */
INLINE void store_8_bit(const ouigemm_epilogue *e, int integer_sums, int adds, const epilogue_tile *tile)
{
    const epilogue_tile here = *tile, *t = &here; /* of which bytes written to C can change nothing */
    const int32_t low = e->output == OUIGEMM_S8 ? -128 : 0, least = low - e->zero_point;
    const floats lower = all((float)least), upper = all((float)(least + 255));
    const floats floor = all(e->relu ? 0 : -INFINITY), beta = all((float)e->beta);
    const floats magic = all(12582912.0f);
    const ints shift = e->zero_point - (ints)magic;
    const ints turn = turn_of(e), zero = turn + e->zero_point;
    const size_t whole = t->c_col == 1 ? t->columns / LANES * LANES : 0;
    uint8_t *row = t->c;
    for (size_t i = 0; i < t->rows; i++, row += t->c_row) {
        for (size_t j = 0; j < t->columns; j += LANES) {
            const size_t left = j < whole ? 0 : t->columns - j; /* 0: all lanes, side by side */
            uint8_t *c = row + (ptrdiff_t)j * t->c_col;
            floats x = scaled(t, integer_sums, i, j);
            if (adds) {
                bytes old = {0};
                if (left)
                    load_ends(&old, left, c, t->c_col);
                else
                    memcpy(&old, c, sizeof old);
                x += beta * less_zero(old, turn, zero);
            }
            bytes q = quantise(activate(x, floor), lower, upper, magic, shift);
            if (left)
                store_ends(&q, left, c, t->c_col);
            else
                memcpy(c, &q, sizeof q);
        }
    }
}

/* C = alpha T + beta C, modulo 2^32; beta = 0 does not read C. */
static void store_s32(const ouigemm_epilogue *e, const epilogue_tile *t)
{
    const uint32_t alpha = (uint32_t)(int32_t)e->alpha, beta = (uint32_t)(int32_t)e->beta;
    for (size_t i = 0; i < t->rows; i++) {
        const uint32_t *sums = (const uint32_t *)t->sums + i * t->sums_row;
        uint32_t *c = (uint32_t *)t->c + (ptrdiff_t)i * t->c_row;
        if (alpha == 1 && beta == 0 && t->c_col == 1)
            memcpy(c, sums, t->columns * sizeof *c);
        else if (beta == 0)
            for (size_t j = 0; j < t->columns; j++)
                c[(ptrdiff_t)j * t->c_col] = alpha * sums[j];
        else
            for (size_t j = 0; j < t->columns; j++)
                c[(ptrdiff_t)j * t->c_col] = alpha * sums[j] + beta * c[(ptrdiff_t)j * t->c_col];
    }
}

static void store_f32(const ouigemm_epilogue *e, const epilogue_tile *t)
{
    const float alpha = (float)e->alpha, beta = (float)e->beta;
    for (size_t i = 0; i < t->rows; i++) {
        const float *sums = (const float *)t->sums + i * t->sums_row;
        float *c = (float *)t->c + (ptrdiff_t)i * t->c_row;
        if (beta == 0)
            for (size_t j = 0; j < t->columns; j++)
                c[(ptrdiff_t)j * t->c_col] = alpha * sums[j];
        else
            for (size_t j = 0; j < t->columns; j++)
                c[(ptrdiff_t)j * t->c_col] = alpha * sums[j] + beta * c[(ptrdiff_t)j * t->c_col];
    }
}

ouigemm_epilogue_store EPILOGUE_STORE;

void EPILOGUE_STORE(const ouigemm_epilogue *epilogue, int integer_sums, const epilogue_tile *tile)
{
    const int eight_bits = epilogue->output == OUIGEMM_S8 || epilogue->output == OUIGEMM_U8;
    const int adds = epilogue->beta != 0;
    if (eight_bits && integer_sums && adds)
        store_8_bit(epilogue, 1, 1, tile);
    else if (eight_bits && integer_sums)
        store_8_bit(epilogue, 1, 0, tile);
    else if (eight_bits)
        store_8_bit(epilogue, 0, adds, tile);
    else if (epilogue->output == OUIGEMM_SCALED && integer_sums)
        store_scaled(epilogue, 1, tile);
    else if (epilogue->output == OUIGEMM_SCALED)
        store_scaled(epilogue, 0, tile);
    else if (integer_sums)
        store_s32(epilogue, tile);
    else
        store_f32(epilogue, tile);
}
