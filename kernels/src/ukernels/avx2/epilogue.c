#include <immintrin.h>

#define EPILOGUE_STORE ouigemm_avx2_epilogue
#define EPILOGUE_LANES 8
#define EPILOGUE_GREATER(x, y) _mm256_max_ps((__m256)(x), (__m256)(y))
#define EPILOGUE_LESSER(x, y) _mm256_min_ps((__m256)(x), (__m256)(y))
#include "../../epilogue_loops.h"
