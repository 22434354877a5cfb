#define EPILOGUE_STORE ouigemm_avx2_epilogue
#define EPILOGUE_LANES 8
#include "../../epilogue_loops.h"
