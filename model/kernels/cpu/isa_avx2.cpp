#define GPTOSS_ISA avx2
#define GPTOSS_ISA_NAME "avx2"
#include "kernels.inl"
