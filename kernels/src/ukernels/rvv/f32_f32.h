#include <riscv_vector.h>

#define SUMS vfloat32m4_t
#define COLUMNS vfloat32m4_t
#define SCALAR float
#define ZERO() __riscv_vfmv_v_f_f32m4(0, 16)
#define LOAD_SUMS(p) __riscv_vle32_v_f32m4((const float *)(p), 16)
#define LOAD_COLUMNS(p) __riscv_vle32_v_f32m4(p, 16)
#define STORE(p, x) __riscv_vse32_v_f32m4((float *)(p), x, 16)
#define ADD(x, y) __riscv_vfadd_vv_f32m4(x, y, 16)
#define STEP(sum, a, b) __riscv_vfmacc_vf_f32m4(sum, a, b, 16)
#include "rows_tile.h"

ROWS_UKERNEL(f32_f32, OUIGEMM_E_F32)
