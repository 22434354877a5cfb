#include <immintrin.h>

#define EPILOGUE_STORE ouigemm_avx512_epilogue
#define EPILOGUE_LANES 16
#define EPILOGUE_GREATER(x, y) _mm512_max_ps((__m512)(x), (__m512)(y))
#define EPILOGUE_LESSER(x, y) _mm512_min_ps((__m512)(x), (__m512)(y))
#include "../../epilogue_loops.h"
