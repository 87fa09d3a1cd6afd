#define GPTOSS_ISA avx512
#define GPTOSS_ISA_NAME "avx512"
#include "kernels.inl"
