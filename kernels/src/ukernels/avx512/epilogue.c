#include <immintrin.h>

#define EPILOGUE_STORE any_epilogue
#define EPILOGUE_LANES 16
#define EPILOGUE_GREATER(x, y) _mm512_max_ps((__m512)(x), (__m512)(y))
#define EPILOGUE_LESSER(x, y) _mm512_min_ps((__m512)(x), (__m512)(y))
#define EPILOGUE_WIDEN(x) ((ints)_mm512_cvtepu8_epi32((__m128i)(x)))
#define EPILOGUE_NARROW(x) ((bytes)_mm512_cvtepi32_epi8((__m512i)(x)))
#include "../../epilogue.h"

static ouigemm_epilogue_store any_epilogue;
#include "../../epilogue_loops.h"

/* Rows of consecutive scaled results: whole rows of the tile at once, of which a mask stores what lies in C. */
enum { MOST_VECTORS = EPILOGUE_COLUMNS / LANES };

INLINE uint64_t first_bits(size_t count)
{
    return count < 64 ? (UINT64_C(1) << count) - 1 : UINT64_MAX;
}

INLINE void rows_of_floats(const ouigemm_epilogue *e, int integer_sums, const epilogue_tile *t, size_t vectors)
{
    const floats floor = all(e->relu ? 0 : -INFINITY);
    const uint64_t inside = first_bits(t->columns);
    float *c = t->c;
    for (size_t i = 0; i < t->rows; i++, c += t->c_row)
        for (size_t v = 0; v < vectors; v++) {
            floats x = activate(scaled(t, integer_sums, i, v * LANES), floor);
            _mm512_mask_storeu_ps(c + v * LANES, (__mmask16)(inside >> v * LANES), (__m512)x);
        }
}

/* Conversion and packing saturate where C ends; all that must be kept away is what is too large for 32 bits.
   NaN is converted to the lowest number. */
INLINE void rows_of_bytes(const ouigemm_epilogue *e, int integer_sums, int adds, const epilogue_tile *t,
                          size_t vectors)
{
    const floats floor = all(e->relu ? 0 : -INFINITY);
    const __m512 most = _mm512_set1_ps(65536);
    const __m512i zero = _mm512_set1_epi16((short)e->zero_point);
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __mmask64 inside = first_bits(t->columns);
    const int is_signed = e->output == OUIGEMM_S8;
    const ints turn = turn_of(e), none = turn + e->zero_point;
    const floats beta = all((float)e->beta);
    char *c = t->c;
    for (size_t i = 0; i < t->rows; i++, c += t->c_row) {
        __m512i q[MOST_VECTORS];
        for (size_t v = 0; v < MOST_VECTORS; v++) {
            const size_t j = v % vectors * LANES;
            floats x = scaled(t, integer_sums, i, j);
            if (adds)
                x += beta * less_zero((bytes)_mm_maskz_loadu_epi8((__mmask16)(inside >> j), c + j), turn, none);
            q[v] = _mm512_cvtps_epi32(_mm512_min_ps(most, (__m512)activate(x, floor)));
        }
        __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(q[0], q[1]), zero);
        __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(q[2], q[3]), zero);
        __m512i packed = is_signed ? _mm512_packs_epi16(low, high) : _mm512_packus_epi16(low, high);
        _mm512_mask_storeu_epi8(c, inside, _mm512_permutexvar_epi32(order, packed));
    }
}

INLINE void rows(const ouigemm_epilogue *epilogue, int integer_sums, const epilogue_tile *tile, size_t vectors)
{
    const ouigemm_epilogue e = *epilogue; /* of which what is written to C can change nothing */
    const epilogue_tile t = *tile;
    if (e.output == OUIGEMM_SCALED)
        rows_of_floats(&e, integer_sums, &t, vectors);
    else if (e.beta != 0)
        rows_of_bytes(&e, integer_sums, 1, &t, vectors);
    else
        rows_of_bytes(&e, integer_sums, 0, &t, vectors);
}

ouigemm_epilogue_store ouigemm_avx512_epilogue;

void ouigemm_avx512_epilogue(const ouigemm_epilogue *e, int integer_sums, const epilogue_tile *t)
{
    const size_t vectors = t->sums_row / LANES;
    const int adds_floats = e->output == OUIGEMM_SCALED && e->beta != 0;
    if (e->output == OUIGEMM_ACCUMULATOR || !integer_sums || adds_floats || t->c_col != 1)
        any_epilogue(e, integer_sums, t);
    else if (vectors == 1)
        rows(e, 1, t, 1);
    else if (vectors == 2)
        rows(e, 1, t, 2);
    else if (vectors == 3)
        rows(e, 1, t, 3);
    else
        rows(e, 1, t, 4);
}
