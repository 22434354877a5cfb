#include "ladder.h"

#include "cpu.h"
#include "sizes.h"

extern const ouigemm_rung ouigemm_rung_amxbf16, ouigemm_rung_amxint8, ouigemm_rung_avx512bf16,
    ouigemm_rung_avx512vnni, ouigemm_rung_avx512vpopcntdq, ouigemm_rung_avx512, ouigemm_rung_avxvnni,
    ouigemm_rung_avx2, ouigemm_rung_neoni8mm, ouigemm_rung_neondot, ouigemm_rung_neon, ouigemm_rung_rvv,
    ouigemm_rung_portable;

static const ouigemm_rung *const ladder[] = {
#if defined(__x86_64__)
    &ouigemm_rung_amxbf16,    &ouigemm_rung_amxint8,         &ouigemm_rung_avx512bf16,
    &ouigemm_rung_avx512vnni, &ouigemm_rung_avx512vpopcntdq, &ouigemm_rung_avx512,
    &ouigemm_rung_avxvnni,    &ouigemm_rung_avx2,
#elif defined(__aarch64__)
    &ouigemm_rung_neoni8mm,   &ouigemm_rung_neondot,         &ouigemm_rung_neon,
#elif defined(OUIGEMM_RVV)
    &ouigemm_rung_rvv,
#endif
    &ouigemm_rung_portable,
};
enum { RUNGS = sizeof ladder / sizeof *ladder, FEW_TILES = 4 };

int ouigemm_rung_count(void)
{
    return RUNGS;
}

const char *ouigemm_rung_name(int rung)
{
    return rung >= 0 && rung < RUNGS ? ladder[rung]->name : NULL;
}

static int present(uint32_t needs)
{
    return (needs & ~cpu_features()) == 0;
}

const char *ouigemm_rung_absent(int rung)
{
    if (rung < 0 || rung >= RUNGS)
        return "no such rung";
    uint32_t missing = ladder[rung]->needs & ~cpu_features();
    /* The highest bit names the instruction set, the lowest the state that it needs. */
    return missing ? cpu_feature_name(1u << (31 - __builtin_clz(missing))) : NULL;
}

/* From this rung down, the first that is usable and says yes. */
static int first_rung(int rung, int (*has)(const ouigemm_rung *, int), int what)
{
    int automatic = rung == OUIGEMM_AUTO;
    if (!automatic && ouigemm_rung_absent(rung))
        return OUIGEMM_AUTO;
    for (int r = automatic ? 0 : rung; r < RUNGS; r++) {
        int usable = r == rung || present(ladder[r]->needs | ladder[r]->auto_needs);
        if (usable && has(ladder[r], what))
            return r;
    }
    return OUIGEMM_AUTO;
}

/* The type whose kernels a rung has for this one: its own, or the wider one that packing converts it to. */
static int served_as(const ouigemm_rung *rung, int type)
{
    static const int wider[OUIGEMM_TYPES] = {OUIGEMM_F32, OUIGEMM_F32, OUIGEMM_S16,
                                             OUIGEMM_S32, OUIGEMM_S16, OUIGEMM_S16};
    return rung->kernels[type] ? type : wider[type];
}

static const ouigemm_ukernel *const *family_of(const ouigemm_rung *rung, int type)
{
    return rung->kernels[served_as(rung, type)];
}

static int has_type(const ouigemm_rung *rung, int type)
{
    return family_of(rung, type) != NULL;
}

static int has_hamming(const ouigemm_rung *rung, int unused)
{
    (void)unused;
    return rung->hamming != NULL;
}

static int has_loops(const ouigemm_rung *rung, int unused)
{
    (void)unused;
    return rung->pack != NULL;
}

const ouigemm_rung *ladder_loops(int rung)
{
    int r = first_rung(rung, has_loops, 0);
    return r < 0 ? NULL : ladder[r];
}

const ouigemm_ukernel *const *ladder_family(ouigemm_type type, int rung)
{
    int r = first_rung(rung, has_type, type);
    return r < 0 ? NULL : family_of(ladder[r], type);
}

static const ouigemm_ukernel *const *pairs_of(const ouigemm_rung *rung, ouigemm_type type)
{
    return type == OUIGEMM_U8S8 || type == OUIGEMM_S8S8 ? rung->pairs : NULL;
}

const ouigemm_ukernel *const *ladder_pairs(ouigemm_type type, int rung)
{
    int r = first_rung(rung, has_type, type);
    return r < 0 ? NULL : pairs_of(ladder[r], type);
}

int ouigemm_adds_pairs(int rung)
{
    return ladder_pairs(OUIGEMM_U8S8, rung) != NULL;
}

double ouigemm_run_stream(ouigemm_type type, int rung, size_t rounds, const char **instruction)
{
    int r = first_rung(rung, has_type, type);
    const ouigemm_stream *stream = r < 0 ? NULL : ladder[r]->streams[served_as(ladder[r], type)];
    *instruction = stream ? stream->instruction : NULL;
    if (!stream)
        return 0;
    stream->run(rounds);
    return (double)stream->operations * (double)rounds;
}

ouigemm_hamming_tile *ladder_hamming(int rung)
{
    int r = first_rung(rung, has_hamming, 0);
    return r < 0 ? NULL : ladder[r]->hamming;
}

const char *ouigemm_hamming_rung(int rung)
{
    int r = first_rung(rung, has_hamming, 0);
    return r < 0 ? NULL : ladder[r]->name;
}

static size_t larger(size_t x, size_t y)
{
    return x > y ? x : y;
}

/* Cost of one step of k: multiply-adds, or the latency that too few accumulators leave open, and loads and
   stores, which are never quite hidden. */
static size_t tile_cost(const ouigemm_ukernel *u)
{
    size_t rows = u->mr / u->op_m, columns = u->nr / u->op_n;
    return larger(rows * columns, u->in_flight) + rows + columns + 2 * u->spilled;
}

static size_t rows_times_columns(const ouigemm_ukernel *u)
{
    return u->mr * u->nr;
}

/* Fewest cycles for a tall matrix of n columns; among equals the largest tile, which loads least. */
const ouigemm_ukernel *ladder_pick_width(const ouigemm_ukernel *const *family, size_t n)
{
    const ouigemm_ukernel *best = family[0];
    for (const ouigemm_ukernel *const *u = family + 1; *u; u++) {
        size_t new = tile_cost(*u) * parts(n, (*u)->nr) * best->mr;
        size_t old = tile_cost(best) * parts(n, best->nr) * (*u)->mr;
        if (new < old || (new == old && rows_times_columns(*u) > rows_times_columns(best)))
            best = *u;
    }
    return best;
}

/* Among kernels of one width: fewest cycles for m rows, then the largest tile. */
const ouigemm_ukernel *ladder_pick_height(const ouigemm_ukernel *const *family, size_t nr, size_t m)
{
    const ouigemm_ukernel *best = NULL;
    for (const ouigemm_ukernel *const *u = family; *u; u++) {
        if ((*u)->nr != nr)
            continue;
        size_t new = tile_cost(*u) * parts(m, (*u)->mr);
        size_t old = best ? tile_cost(best) * parts(m, best->mr) : SIZE_MAX;
        if (new < old || (new == old && rows_times_columns(*u) > rows_times_columns(best)))
            best = *u;
    }
    return best;
}

/* To widen a panel of B costs about as much as a tile or two of it. */
const ouigemm_ukernel *ladder_pick_wide(const ouigemm_ukernel *u, size_t m)
{
    return u->wide && parts(m, u->mr) > FEW_TILES ? u->wide : u;
}

const char *ouigemm_kernel_name(ouigemm_type type, int rung, size_t m, size_t n)
{
    const ouigemm_ukernel *const *family = ladder_family(type, rung);
    if (!family)
        return NULL;
    return ladder_pick_wide(ladder_pick_height(family, ladder_pick_width(family, n)->nr, m), m)->name;
}

const char *ouigemm_rung_kernel(int rung, ouigemm_type type, int index)
{
    const ouigemm_ukernel *const *families[] = {family_of(ladder[rung], type), pairs_of(ladder[rung], type)};
    for (int i = 0; i < 2; i++)
        for (const ouigemm_ukernel *const *u = families[i]; u && *u; u++)
            if (index-- == 0)
                return (*u)->name;
    return NULL;
}
