#define GPTOSS_ISA portable
#define GPTOSS_ISA_NAME "portable"
#include "kernels.inl"
