// A plain read loop: what the memory gives, to hold the decoding against.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gptoss {

// Reads `bytes` once, a part a thread; returns a value that depends on them.
int32_t read_once(const void* data, size_t bytes, int threads);

} // namespace gptoss
