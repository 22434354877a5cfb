#define PACK_PANELS ouigemm_portable_pack
#include "../../pack_loops.h"
