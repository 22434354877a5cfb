/* Copies a matrix into the panels of a micro-kernel, with zeros where a panel is larger than it. */
#ifndef OUIGEMM_PACK_H
#define OUIGEMM_PACK_H

#include "ouigemm/ukernel.h"

/* One operand seen from its panels: `lanes` rows of A or columns of B, each `depth` long. */
typedef struct pack_source {
    const void *data;
    ptrdiff_t lane, step;  /* distance of neighbouring lanes and of neighbouring k, in elements */
    size_t lanes, depth;
    ouigemm_element element;
} pack_source;

/* Panels of `width` lanes in groups of `group` steps: element (lane, p) of a panel goes to
   (p / group) * width * group + lane * group + p % group. Lanes are rounded up to `width`, the depth
   to `depth_step`. An s8 that is to be u8 becomes s + 128, a u8 that is to
   be s8 becomes u - 128. Panels of one lane are rows, and may lie
   further apart: `pitch` elements, or 0 for one after the other. */
typedef struct pack_target {
    void *panels;
    size_t width, group, depth_step, pitch;
    ouigemm_element element;
} pack_target;

static inline size_t element_bytes(ouigemm_element element)
{
    static const size_t bytes[] = {4, 2, 2, 4, 1, 1};
    return bytes[element];
}

#endif
