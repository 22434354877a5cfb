#define EPILOGUE_STORE ouigemm_portable_epilogue
#define EPILOGUE_LANES 4
#include "../../epilogue_loops.h"
