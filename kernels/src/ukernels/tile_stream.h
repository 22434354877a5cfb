/* The product of AMX on tile registers alone, into four accumulators. */
#include "tiles.h"

#define TILE_STREAM(isa, types, instruction, k)                                                        \
    static void stream_##types(size_t rounds)                                                          \
    {                                                                                                  \
        tiles_begin(NULL);                                                                             \
        TILE_ZERO(4);                                                                                  \
        TILE_ZERO(6);                                                                                  \
        for (size_t i = 0; i < rounds; i++) {                                                          \
            TILE_PRODUCT(instruction, 0, 4, 6);                                                        \
            TILE_PRODUCT(instruction, 1, 4, 6);                                                        \
            TILE_PRODUCT(instruction, 2, 4, 6);                                                        \
            TILE_PRODUCT(instruction, 3, 4, 6);                                                        \
        }                                                                                              \
        tiles_end();                                                                                   \
    }                                                                                                  \
    const ouigemm_stream ouigemm_##isa##_##types##_stream = {#instruction, 4 * 2 * 16 * 16 * (k),      \
                                                             stream_##types};
