#define PACK_PANELS ouigemm_avx512_pack
#include "../../pack_loops.h"
