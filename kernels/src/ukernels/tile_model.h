/* The tile instructions in plain C, to prove the kernels' use of them where there is no AMX. It knows
   whole tiles only; instruction encodings remain for a machine with AMX to check. */
#include <string.h>

static _Thread_local uint8_t model_tiles[TILE_REGISTERS][TILE_ROWS][TILE_ROW_BYTES];
static _Thread_local int model_configured;

#define TILE_CONFIGURE(configuration) model_configure(configuration)
#define TILE_RELEASE() (void)(model_configured = 0)
#define TILE_ZERO(c) memset(model_tiles[c], 0, sizeof model_tiles[c])
#define TILE_LOAD(t, p, stride) model_load(t, p, stride)
#define TILE_STORE(t, p, stride) model_store(t, p, stride)
#define TILE_PRODUCT(instruction, c, a, b) MODEL_PRODUCT(instruction, c, a, b)
#define MODEL_PRODUCT(instruction, c, a, b) model_##instruction(model_tiles[c], model_tiles[a], model_tiles[b])

static inline void model_configure(const struct tile_configuration *configuration)
{
    int whole = configuration->palette == 1;
    for (int t = 0; t < TILE_REGISTERS; t++)
        whole &= configuration->rows[t] == TILE_ROWS && configuration->row_bytes[t] == TILE_ROW_BYTES;
    model_configured = whole;
}

/* As the CPU would, stop at a tile that nobody has configured. */
static inline void model_check(void)
{
    if (!model_configured)
        __builtin_trap();
}

static inline void model_load(int tile, const void *from, ptrdiff_t stride)
{
    model_check();
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy(model_tiles[tile][r], (const char *)from + r * stride, TILE_ROW_BYTES);
}

static inline void model_store(int tile, void *to, ptrdiff_t stride)
{
    model_check();
    for (int r = 0; r < TILE_ROWS; r++)
        memcpy((char *)to + r * stride, model_tiles[tile][r], TILE_ROW_BYTES);
}

typedef uint8_t model_tile[TILE_ROWS][TILE_ROW_BYTES];

/* Products touch registers only: sanitizers watch the loads and stores above, and these run ten times as fast. */
#define ON_REGISTERS __attribute__((no_sanitize("address", "undefined")))

/* c[r][j] += sum of a[r][4g+q] b[g][4j+q] */
#define MODEL_8_BIT_PRODUCT(instruction, a_type)                                                       \
    ON_REGISTERS static inline void model_##instruction(model_tile c, model_tile a, model_tile b)      \
    {                                                                                                  \
        model_check();                                                                                 \
        for (int r = 0; r < TILE_ROWS; r++)                                                            \
            for (int j = 0; j < 16; j++) {                                                             \
                uint32_t sum;                                                                          \
                memcpy(&sum, c[r] + 4 * j, 4);                                                         \
                for (int g = 0; g < 16; g++)                                                           \
                    for (int q = 0; q < 4; q++)                                                        \
                        sum += (uint32_t)((a_type)a[r][4 * g + q] * (int8_t)b[g][4 * j + q]);          \
                memcpy(c[r] + 4 * j, &sum, 4);                                                         \
            }                                                                                          \
    }
MODEL_8_BIT_PRODUCT(tdpbssd, int8_t)
MODEL_8_BIT_PRODUCT(tdpbusd, uint8_t)

ON_REGISTERS static inline float model_bf16(const uint8_t *bytes)
{
    uint16_t bits;
    memcpy(&bits, bytes, 2);
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, 4);
    return value;
}

ON_REGISTERS static inline void model_tdpbf16ps(model_tile c, model_tile a, model_tile b)
{
    model_check();
    for (int r = 0; r < TILE_ROWS; r++)
        for (int j = 0; j < 16; j++) {
            float sum;
            memcpy(&sum, c[r] + 4 * j, 4);
            for (int g = 0; g < 16; g++)
                for (int q = 0; q < 2; q++)
                    sum += model_bf16(a[r] + 4 * g + 2 * q) * model_bf16(b[g] + 4 * j + 2 * q);
            memcpy(c[r] + 4 * j, &sum, 4);
        }
}
