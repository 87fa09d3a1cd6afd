#include "bandwidth.h"

#include <algorithm>
#include <atomic>

#include "parallel.h"

namespace gptoss {

uint64_t read_once(const Kernels& kernels, const void* data, size_t bytes) {
    constexpr size_t piece = size_t(1) << 20; // whole words, so that the sums of all pieces are the sum of the data
    std::atomic<uint64_t> sum{0};
    parallel_for(kernels.threads, int64_t((bytes + piece - 1) / piece), 4, [&](int64_t i, int) {
        sum += kernels.table.read_once(static_cast<const char*>(data) + i * piece, std::min(piece, bytes - i * piece));
    });
    return sum;
}

} // namespace gptoss
