#define EPILOGUE_STORE ouigemm_avx512_epilogue
#define EPILOGUE_LANES 16
#include "../../epilogue_loops.h"
