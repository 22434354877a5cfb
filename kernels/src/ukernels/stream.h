/* Streams of one instruction on registers alone, for x86. Twelve accumulators hide its latency, which is
   five cycles at most, twice a cycle. Zeros: what is multiplied does not matter to the clock, unless it is
   subnormal.

     STREAM(isa, types, instruction, operations, text)

   `text` is the instruction for accumulator \\r; registers 12 to 15 are free for its operands. */
#include "ouigemm/ukernel.h"

enum { ACCUMULATORS = 12 };

#define STREAM(isa, types, name, each, text)                                                           \
    static void stream_##types(size_t rounds)                                                          \
    {                                                                                                  \
        __asm__ volatile("vzeroall\n"                                                                  \
                         "1:\n\t"                                                                      \
                         ".irp r,0,1,2,3,4,5,6,7,8,9,10,11\n\t" text "\n\t.endr\n\t"                    \
                         "dec %0\n\t"                                                                 \
                         "jnz 1b"                                                                      \
                         : "+r"(rounds)                                                                \
                         :                                                                             \
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",     \
                           "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc");        \
    }                                                                                                  \
    const ouigemm_stream ouigemm_##isa##_##types##_stream = {name, ACCUMULATORS * (each), stream_##types};
