#include "bandwidth.h"

#include <algorithm>
#include <atomic>
#include <cstring>

#include "parallel.h"

namespace gptoss {

unsigned long read_once(const void* data, size_t bytes, int threads) {
    constexpr size_t piece = size_t(1) << 20;
    typedef unsigned long V __attribute__((vector_size(64)));
    std::atomic<unsigned long> all{0};
    parallel_for(threads, int64_t((bytes + piece - 1) / piece), 4, [&](int64_t i, int) {
        const char* p = static_cast<const char*>(data) + i * piece;
        const size_t n = std::min(piece, bytes - i * piece);
        V seen[4] = {};
        for (size_t at = 0; at + sizeof seen <= n; at += sizeof seen) {
            V next[4];
            std::memcpy(next, p + at, sizeof next);
            for (int j = 0; j < 4; j++) seen[j] |= next[j];
        }
        seen[0] |= seen[1] | seen[2] | seen[3];
        unsigned long any = 0;
        for (int j = 0; j < 8; j++) any |= seen[0][j];
        all |= any;
    });
    return all;
}

} // namespace gptoss
