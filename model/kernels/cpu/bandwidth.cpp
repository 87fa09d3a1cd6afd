#include "bandwidth.h"

#include <algorithm>
#include <atomic>

#include "dispatch.h"
#include "parallel.h"

namespace gptoss {

int32_t read_once(const void* data, size_t bytes, int threads) {
    constexpr size_t piece = size_t(1) << 20;
    const Kernels& k = active_kernels();
    std::atomic<int32_t> any{0};
    parallel_for(threads, int64_t((bytes + piece - 1) / piece), 4, [&](int64_t i, int) {
        any |= k.read_once(static_cast<const char*>(data) + i * piece, std::min(piece, bytes - i * piece));
    });
    return any;
}

} // namespace gptoss
