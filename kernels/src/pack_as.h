/* Packing for one pair of element types. The file that includes this defines
     PACK_NAME        name of the function
     PACK_FROM        element of the matrix
     PACK_TO          element of the panels
     PACK_CONVERT(x)  the one as the other
   and may define PACK_LANES_BY_4 where it has something quicker for consecutive lanes in groups of four.
   The group is a constant in each of the copies below, so that the compiler turns them into moves
   and interleavings of whole vectors. */

#define PACK_JOIN_1(name, suffix) name##suffix
#define PACK_JOIN(name, suffix) PACK_JOIN_1(name, suffix)

/* What only moves is moved as bytes: whole vectors, whatever the compiler thinks of the loop. */
static inline __attribute__((always_inline)) void PACK_JOIN(PACK_NAME, _run)(const PACK_FROM *restrict from,
                                                                             PACK_TO *restrict to, size_t count)
{
    if (sizeof(PACK_FROM) == sizeof(PACK_TO) && PACK_CONVERT(1) == 1)
        memcpy(to, from, count * sizeof(PACK_TO));
    else
        for (size_t p = 0; p < count; p++)
            to[p] = PACK_CONVERT(from[p]);
}

/* Consecutive k in memory: each lane brings whole groups; a cache line of each at a time. */
static inline __attribute__((always_inline)) void PACK_JOIN(PACK_NAME, _groups)(
    const PACK_FROM *restrict from, ptrdiff_t lane, size_t lanes, size_t groups, PACK_TO *restrict to,
    size_t width, size_t group)
{
    const size_t line = group < 64 / sizeof(PACK_FROM) ? 64 / sizeof(PACK_FROM) / group : 1;
    for (size_t g0 = 0; g0 < groups; g0 += line) {
        size_t g1 = g0 + line < groups ? g0 + line : groups;
        for (size_t i = 0; i < lanes; i++) {
            const PACK_FROM *x = from + (ptrdiff_t)i * lane;
            for (size_t g = g0; g < g1; g++)
                for (size_t q = 0; q < group; q++)
                    to[(g * width + i) * group + q] = PACK_CONVERT(x[g * group + q]);
        }
    }
}

/* Consecutive lanes in memory, one step of k after the other; `ahead` bytes further on each row is fetched. */
static inline __attribute__((always_inline)) void PACK_JOIN(PACK_NAME, _single)(
    const PACK_FROM *restrict from, ptrdiff_t step, size_t lanes, size_t steps, PACK_TO *restrict to, size_t width,
    size_t ahead)
{
    for (size_t p = 0; p < steps; p++, from += step, to += width) {
        size_t i = 0;
        __builtin_prefetch((const void *)((uintptr_t)from + ahead));
        for (; i + 16 <= lanes; i += 16)
            PACK_JOIN(PACK_NAME, _run)(from + i, to + i, 16);
        for (; i + 8 <= lanes; i += 8)
            PACK_JOIN(PACK_NAME, _run)(from + i, to + i, 8);
        for (; i < lanes; i++)
            to[i] = PACK_CONVERT(from[i]);
    }
}

/* The same, of which `group` steps are interleaved. */
static inline __attribute__((always_inline)) void PACK_JOIN(PACK_NAME, _lanes)(
    const PACK_FROM *restrict from, ptrdiff_t step, size_t lanes, size_t groups, PACK_TO *restrict to,
    size_t width, size_t group)
{
    for (size_t g = 0; g < groups; g++)
        for (size_t i = 0; i < lanes; i++)
            for (size_t q = 0; q < group; q++)
                to[(g * width + i) * group + q] =
                    PACK_CONVERT(from[(ptrdiff_t)i + (ptrdiff_t)(g * group + q) * step]);
}

#ifndef PACK_LANES_BY_4
#define PACK_LANES_BY_4(from, step, lanes, groups, to, width)                                          \
    PACK_JOIN(PACK_NAME, _lanes)(from, step, lanes, groups, to, width, 4)
#endif

/* Steps from.. of the depth of one panel: `steps` of them, `depth` with the zeros behind them. */
static void PACK_JOIN(PACK_NAME, _panel)(const pack_source *source, const pack_target *target,
                                         const PACK_FROM *from, size_t lanes, size_t steps, size_t depth,
                                         PACK_TO *to, size_t ahead)
{
    const size_t width = target->width, group = target->group;
    size_t groups = steps / group;
    if (lanes < width || depth > steps)
        memset(to, 0, width * depth * sizeof(PACK_TO));
    if (source->step == 1 && group == 1)
        PACK_JOIN(PACK_NAME, _groups)(from, source->lane, lanes, groups, to, width, 1);
    else if (source->step == 1 && group == 2)
        PACK_JOIN(PACK_NAME, _groups)(from, source->lane, lanes, groups, to, width, 2);
    else if (source->step == 1 && group == 4)
        PACK_JOIN(PACK_NAME, _groups)(from, source->lane, lanes, groups, to, width, 4);
    else if (source->step == 1)
        PACK_JOIN(PACK_NAME, _groups)(from, source->lane, lanes, groups, to, width, group);
    else if (source->lane == 1 && group == 1)
        PACK_JOIN(PACK_NAME, _single)(from, source->step, lanes, groups, to, width, ahead);
    else if (source->lane == 1 && group == 2)
        PACK_JOIN(PACK_NAME, _lanes)(from, source->step, lanes, groups, to, width, 2);
    else if (source->lane == 1 && group == 4)
        PACK_LANES_BY_4(from, source->step, lanes, groups, to, width);
    else if (source->lane == 1 && group == 8)
        PACK_JOIN(PACK_NAME, _lanes)(from, source->step, lanes, groups, to, width, 8);
    else
        groups = 0; /* any other strides: one element at a time, like the ragged end */
    for (size_t p = groups * group; p < steps; p++)
        for (size_t i = 0; i < lanes; i++)
            to[(p / group * width + i) * group + p % group] =
                PACK_CONVERT(from[(ptrdiff_t)i * source->lane + (ptrdiff_t)p * source->step]);
}

/* Rows that stay rows: in whole vectors, of which the last may overlap the one before. */
static inline void PACK_JOIN(PACK_NAME, _row)(const PACK_FROM *restrict from, size_t depth, PACK_TO *restrict to,
                                              size_t padded)
{
    size_t p = 0;
    for (; p + 64 <= depth; p += 64)
        PACK_JOIN(PACK_NAME, _run)(from + p, to + p, 64);
    for (; p + 16 <= depth; p += 16)
        PACK_JOIN(PACK_NAME, _run)(from + p, to + p, 16);
    if (depth >= 16)
        PACK_JOIN(PACK_NAME, _run)(from + depth - 16, to + depth - 16, 16);
    else
        PACK_JOIN(PACK_NAME, _run)(from, to, depth);
    for (p = depth; p < padded; p++)
        to[p] = 0;
}

static void PACK_JOIN(PACK_NAME, _rows)(const pack_source *source, const pack_target *target, size_t padded)
{
    const size_t lanes = source->lanes, depth = source->depth, pitch = target->pitch ? target->pitch : padded;
    for (size_t i = 0; i < lanes; i++)
        PACK_JOIN(PACK_NAME, _row)((const PACK_FROM *)source->data + (ptrdiff_t)i * source->lane, depth,
                                   (PACK_TO *)target->panels + i * pitch, padded);
}

static void PACK_NAME(const pack_source *source, const pack_target *target)
{
    const size_t step = target->depth_step;
    const size_t depth = (source->depth + step - 1) / step * step;
    if (target->width == 1 && source->step == 1) {
        PACK_JOIN(PACK_NAME, _rows)(source, target, depth);
        return;
    }
    /* Consecutive lanes are read in rows that run through all panels, as memory likes it. From beyond level 2
       they are few at a time, since hardware follows no more of them. */
    const ptrdiff_t bytes = source->step * (ptrdiff_t)source->depth * (ptrdiff_t)sizeof(PACK_FROM);
    const int rows = source->lane == 1, far = rows && bytes >= FAR;
    const size_t strip = far ? GROUPS_FROM_AFAR * target->group : rows ? STRIP : depth;
    for (size_t p = 0; p < depth; p += strip) {
        const size_t padded = depth - p < strip ? depth - p : strip;
        const size_t steps = source->depth < p ? 0 : source->depth - p < padded ? source->depth - p : padded;
        for (size_t i = 0; i < source->lanes; i += target->width) {
            const PACK_FROM *from =
                (const PACK_FROM *)source->data + (ptrdiff_t)i * source->lane + (ptrdiff_t)p * source->step;
            const size_t lanes = source->lanes - i < target->width ? source->lanes - i : target->width;
            PACK_JOIN(PACK_NAME, _panel)(source, target, from, lanes, steps, padded,
                                         (PACK_TO *)target->panels + i * depth + p * target->width,
                                         far ? AHEAD : 0);
        }
    }
}

#undef PACK_JOIN
#undef PACK_JOIN_1
#undef PACK_NAME
#undef PACK_LANES_BY_4
#undef PACK_FROM
#undef PACK_TO
#undef PACK_CONVERT
