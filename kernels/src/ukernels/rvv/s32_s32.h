#include <riscv_vector.h>

#define SUMS vint32m4_t
#define COLUMNS vint32m4_t
#define SCALAR int32_t
#define ZERO() __riscv_vmv_v_x_i32m4(0, 16)
#define LOAD_SUMS(p) __riscv_vle32_v_i32m4((const int32_t *)(p), 16)
#define LOAD_COLUMNS(p) __riscv_vle32_v_i32m4(p, 16)
#define STORE(p, x) __riscv_vse32_v_i32m4((int32_t *)(p), x, 16)
#define ADD(x, y) __riscv_vadd_vv_i32m4(x, y, 16)
#define STEP(sum, a, b) __riscv_vmacc_vx_i32m4(sum, a, b, 16)
#include "rows_tile.h"

ROWS_UKERNEL(s32_s32, OUIGEMM_E_S32)
