/* A program around one exported product: main A B C m n k, with the files of A, B (in) and C (out), row by row.
 * TYPE_A, TYPE_B, TYPE_C are DLPack's type codes, BITS_* their widths. It needs no TVM: the two things that the
 * object asks of TVM's runtime, memory and a place for errors, are here. */
#include <stdio.h>
#include <stdlib.h>
#include <tvm/ffi/c_api.h>

int __tvm_ffi_main(void *self, const TVMFFIAny *args, int32_t count, TVMFFIAny *result);

static void *reserve(int device, int id, uint64_t bytes, int code, int bits) {
    (void)device, (void)id, (void)code, (void)bits;
    return aligned_alloc(64, (bytes + 63) / 64 * 64);
}

static int release(int device, int id, void *memory) {
    (void)device, (void)id;
    free(memory);
    return 0;
}

/* The object calls through these two variables, which TVM's loader would set. */
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int) = reserve;
int (*__TVMBackendFreeWorkspace)(int, int, void *) = release;

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int32_t count) {
    fprintf(stderr, "%s: ", kind);
    for (int32_t i = 0; i < count; ++i) fputs(parts[i] ? parts[i] : "", stderr);
    fputc('\n', stderr);
}

static void *matrix(const char *path, size_t bytes) {
    void *data = reserve(0, 0, bytes, 0, 0);
    FILE *file = path ? fopen(path, "rb") : NULL;
    if (!data || (path && (!file || fread(data, 1, bytes, file) != bytes))) {
        fprintf(stderr, "cannot read %zu bytes from %s\n", bytes, path ? path : "memory");
        exit(2);
    }
    if (file) fclose(file);
    return data;
}

int main(int argc, char **argv) {
    if (argc != 7) return fputs("main A B C m n k\n", stderr), 2;
    int64_t m = atoll(argv[4]), n = atoll(argv[5]), k = atoll(argv[6]);
    int64_t shapes[3][2] = {{m, k}, {k, n}, {m, n}}, strides[3][2] = {{k, 1}, {n, 1}, {n, 1}};
    DLDataType types[3] = {{TYPE_A, BITS_A, 1}, {TYPE_B, BITS_B, 1}, {TYPE_C, BITS_C, 1}};
    DLTensor tensors[3];
    TVMFFIAny args[3], result = {0};
    size_t bytes[3];
    for (int i = 0; i < 3; ++i) {
        bytes[i] = (size_t)(shapes[i][0] * shapes[i][1]) * types[i].bits / 8;
        void *data = matrix(i < 2 ? argv[1 + i] : NULL, bytes[i]);
        tensors[i] = (DLTensor){data, {kDLCPU, 0}, 2, types[i], shapes[i], strides[i], 0};
        args[i] = (TVMFFIAny){.type_index = kTVMFFIDLTensorPtr, .v_ptr = &tensors[i]};
    }
    if (__tvm_ffi_main(NULL, args, 3, &result)) return 1;
    FILE *file = fopen(argv[3], "wb");
    return !file || fwrite(tensors[2].data, 1, bytes[2], file) != bytes[2] || fclose(file);
}
