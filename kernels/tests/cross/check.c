/* The package without Python, for machines that only an emulator has.

     check              every rung that this CPU has: all types, shapes that fit no tile, packed and not,
                        against a plain triple loop in wide arithmetic; then Hamming distances
     check rungs        the ladder: name, and what is missing or nothing
     check RUNG TYPE M N K   one product, for those who count instructions

   Integers must be exact, floats within (2k + 4) 2^-24 of the sum of magnitudes. Exits with 1 on a mismatch. */
#include "ouigemm/ouigemm.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const type_names[] = {"f32", "bf16", "s16", "s32", "u8s8", "s8s8"};
static const size_t bytes_of_a[] = {4, 2, 2, 4, 1, 1};

static uint32_t state = 1;

static uint32_t random_bits(void)
{
    state = state * 1664525u + 1013904223u;
    return state >> 8;
}

/* A quarter of the integers are the ends of their type. */
static void fill(void *to, size_t count, ouigemm_type type, int is_a)
{
    for (size_t i = 0; i < count; i++) {
        uint32_t bits = random_bits(), end = random_bits() % 8;
        float real = (float)(int)(bits % 2001 - 1000) / 1000;
        if (type == OUIGEMM_F32)
            ((float *)to)[i] = real;
        else if (type == OUIGEMM_BF16)
            memcpy((uint16_t *)to + i, (const char *)&real + 2, 2); /* little-endian: the upper half */
        else if (type == OUIGEMM_S16)
            ((int16_t *)to)[i] = (int16_t)(end == 0 ? INT16_MIN : end == 1 ? INT16_MAX : (int)bits);
        else if (type == OUIGEMM_S32)
            ((int32_t *)to)[i] = end == 0 ? INT32_MIN : end == 1 ? INT32_MAX : (int32_t)(bits << 8 ^ random_bits());
        else if (type == OUIGEMM_U8S8 && is_a)
            ((uint8_t *)to)[i] = (uint8_t)(end == 0 ? 0 : end == 1 ? 255 : bits);
        else
            ((int8_t *)to)[i] = (int8_t)(end == 0 ? -128 : end == 1 ? 127 : (int)bits);
    }
}

static double value(const void *x, size_t i, ouigemm_type type, int is_a)
{
    if (type == OUIGEMM_F32)
        return ((const float *)x)[i];
    if (type == OUIGEMM_BF16) {
        uint32_t bits = (uint32_t)((const uint16_t *)x)[i] << 16;
        float real;
        memcpy(&real, &bits, 4);
        return real;
    }
    if (type == OUIGEMM_S16)
        return ((const int16_t *)x)[i];
    if (type == OUIGEMM_S32)
        return ((const int32_t *)x)[i];
    return type == OUIGEMM_U8S8 && is_a ? ((const uint8_t *)x)[i] : ((const int8_t *)x)[i];
}

struct operands {
    ouigemm_type type;
    size_t m, n, k;
    void *a, *b;
    int transposed;  /* A and B are stored the other way round */
};

static void strides(const struct operands *o, ouigemm_matrix *a, ouigemm_matrix *b)
{
    *a = (ouigemm_matrix){o->a, o->transposed ? 1 : (ptrdiff_t)o->k, o->transposed ? (ptrdiff_t)o->m : 1};
    *b = (ouigemm_matrix){o->b, o->transposed ? 1 : (ptrdiff_t)o->n, o->transposed ? (ptrdiff_t)o->k : 1};
}

static int agrees(const struct operands *o, const void *c)
{
    ouigemm_matrix a, b;
    strides(o, &a, &b);
    for (size_t i = 0; i < o->m; i++)
        for (size_t j = 0; j < o->n; j++) {
            double sum = 0, magnitude = 0;
            uint32_t wrapped = 0;
            for (size_t p = 0; p < o->k; p++) {
                double x = value(o->a, (size_t)((ptrdiff_t)i * a.row + (ptrdiff_t)p * a.col), o->type, 1);
                double y = value(o->b, (size_t)((ptrdiff_t)p * b.row + (ptrdiff_t)j * b.col), o->type, 0);
                sum += x * y;
                magnitude += fabs(x * y);
                wrapped += (uint32_t)(int64_t)x * (uint32_t)(int64_t)y;
            }
            size_t at = i * o->n + j;
            if (o->type >= OUIGEMM_S16 ? ((const uint32_t *)c)[at] != wrapped
                                       : fabs(((const float *)c)[at] - sum) >
                                             (double)(2 * o->k + 4) * 0x1p-24 * magnitude + 1e-30)
                return 0;
        }
    return 1;
}

static void multiply(const struct operands *o, int rung, int packed, int threads, void *c)
{
    ouigemm_call call = {.type = o->type, .rung = rung, .threads = threads, .m = o->m, .n = o->n, .k = o->k, .c = c,
                         .c_row = (ptrdiff_t)o->n, .c_col = 1, .epilogue = {.alpha = 1}};
    ouigemm_packed *weights = NULL;
    strides(o, &call.a, &call.b);
    /* As Python packs: weights of s8 for both signs of A. */
    ouigemm_type kind = o->type == OUIGEMM_U8S8 ? OUIGEMM_S8S8 : o->type;
    if (packed && ouigemm_pack(kind, rung, o->k, o->n, &call.b, &weights) != OUIGEMM_OK)
        exit(2);
    call.packed = weights;
    if (ouigemm_gemm(&call) != OUIGEMM_OK)
        exit(2);
    ouigemm_packed_free(weights);
}

static struct operands operands(ouigemm_type type, size_t m, size_t n, size_t k, int transposed)
{
    struct operands o = {type, m, n, k, malloc(m * k * bytes_of_a[type] + 1), malloc(k * n * bytes_of_a[type] + 1),
                         transposed};
    if (!o.a || !o.b)
        exit(2);
    fill(o.a, m * k, type, 1);
    fill(o.b, k * n, type, 0);
    return o;
}

static int check_type(int rung, ouigemm_type type)
{
    static const size_t shapes[][3] = {{1, 1, 1}, {3, 5, 0}, {2, 17, 3}, {7, 12, 16}, {8, 16, 64}, {13, 31, 65},
                                       {17, 33, 129}, {5, 48, 700}, {64, 7, 31}};
    int wrong = 0;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int how = 0; how < 4; how++) {
            const size_t *size = shapes[s];
            struct operands o = operands(type, size[0], size[1], size[2], how & 1);
            void *c = malloc(o.m * o.n * 4);
            memset(c, 0xff, o.m * o.n * 4);
            multiply(&o, rung, how & 2, 2, c);
            if (!agrees(&o, c)) {
                printf("WRONG %s %s %zu x %zu x %zu%s%s\n", ouigemm_rung_name(rung), type_names[type], o.m, o.n, o.k,
                       how & 1 ? " transposed" : "", how & 2 ? " packed" : "");
                wrong = 1;
            }
            free(c), free(o.a), free(o.b);
        }
    printf("%s %s %s\n", ouigemm_rung_name(rung), type_names[type], ouigemm_kernel_name(type, rung, 100, 100));
    return wrong;
}

static int check_hamming(int rung)
{
    enum { ROWS = 9, WORDS = 13 };
    uint64_t bits[ROWS * WORDS];
    int64_t distances[ROWS * ROWS];
    int wrong = 0;
    for (size_t i = 0; i < ROWS * WORDS; i++)
        bits[i] = (uint64_t)random_bits() << 40 ^ (uint64_t)random_bits() << 20 ^ random_bits();
    if (ouigemm_hamming(bits, ROWS, WORDS, rung, 1, distances) != OUIGEMM_OK)
        exit(2);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < ROWS; j++) {
            int64_t want = 0;
            for (size_t w = 0; w < WORDS; w++)
                want += __builtin_popcountll(bits[i * WORDS + w] ^ bits[j * WORDS + w]);
            wrong |= distances[i * ROWS + j] != want;
        }
    printf("%s%s hamming %s\n", wrong ? "WRONG " : "", ouigemm_rung_name(rung), ouigemm_hamming_rung(rung));
    return wrong;
}

static int rung_named(const char *name)
{
    for (int rung = 0; rung < ouigemm_rung_count(); rung++)
        if (strcmp(name, ouigemm_rung_name(rung)) == 0)
            return rung;
    exit(2);
}

static int type_named(const char *name)
{
    for (int type = 0; type < OUIGEMM_TYPES; type++)
        if (strcmp(name, type_names[type]) == 0)
            return type;
    exit(2);
}

int main(int count, char **words)
{
    if (count == 6) {
        struct operands o = operands((ouigemm_type)type_named(words[2]), strtoul(words[3], NULL, 10),
                                     strtoul(words[4], NULL, 10), strtoul(words[5], NULL, 10), 0);
        void *c = malloc(o.m * o.n * 4);
        int rung = rung_named(words[1]);
        multiply(&o, rung, 1, 1, c); /* the counter of instructions is not made for two */
        printf("%s\n", ouigemm_kernel_name(o.type, rung, o.m, o.n));
        return !agrees(&o, c);
    }
    int wrong = 0;
    for (int rung = 0; rung < ouigemm_rung_count(); rung++) {
        const char *absent = ouigemm_rung_absent(rung);
        if (count == 2)
            printf("%s: %s\n", ouigemm_rung_name(rung), absent ? absent : "");
        else if (!absent) {
            for (int type = 0; type < OUIGEMM_TYPES; type++)
                wrong |= check_type(rung, (ouigemm_type)type);
            wrong |= check_hamming(rung);
        }
    }
    return wrong;
}
