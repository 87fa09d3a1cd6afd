// A plain read loop: what the memory gives, to hold the decoding against.
#pragma once
#include <cstddef>

namespace gptoss {

// Reads `bytes` once, a part a thread; returns a value that depends on all of them.
unsigned long read_once(const void* data, size_t bytes, int threads);

} // namespace gptoss
