#define PACK_PANELS ouigemm_avx2_pack
#include "../../pack_loops.h"
