// A plain read loop: the memory bandwidth that decoding is compared with.
#pragma once
#include "dispatch.h"

namespace gptoss {

// Reads `bytes` once, a part a thread; returns the checksum of KernelTable::read_once.
uint64_t read_once(const Kernels& kernels, const void* data, size_t bytes);

} // namespace gptoss
