#include "sequence.h"

#include <algorithm>

#include "dispatch.h"
#include "memory.h"
#include "parallel.h"

namespace gptoss {
namespace {

// Queries that go together through a block of keys: many share the cost of laying it out, few fit the cache.
constexpr int kQueries = 64;
// Tokens from which more than one thread pays in the small operations.
constexpr int kFewTokens = 8;

} // namespace

void rms_norm(const float* x, const float* scale, int tokens, int columns, float eps, float* out, int threads) {
    const Kernels& k = active_kernels();
    count(k, Op::rms_norm);
    parallel_for(tokens < kFewTokens ? 1 : threads, tokens, 4, [&](int64_t t, int) {
        k.rms_norm(x + t * columns, scale, columns, eps, out + t * columns);
    });
}

void rope(const float* x, const float* cos, const float* sin, int tokens, int heads, int half, float* out,
          int threads) {
    const Kernels& k = active_kernels();
    count(k, Op::rope);
    const ptrdiff_t stride = ptrdiff_t(2) * heads * half;
    parallel_for(tokens < kFewTokens ? 1 : threads, tokens, 4, [&](int64_t t, int) {
        k.rope(x + t * stride, cos + t * half, sin + t * half, heads, half, out + t * stride);
    });
}

void attention(const float* q, const KeyValues& k, const KeyValues& v, const float* sinks, int tokens, int64_t keys,
               int kv_heads, int group, int head_dim, int64_t window, float* out, int threads) {
    const Kernels& kernels = active_kernels();
    count(kernels, Op::attention);
    const int together = std::clamp(kQueries / group, 1, tokens);
    const int64_t pieces = (tokens + together - 1) / together;
    const size_t scratch_size = attention_scratch(together * group, head_dim);
    const Buffer<float> scratch(scratch_size * threads);
    const ptrdiff_t q_stride = ptrdiff_t(kv_heads) * group * head_dim;
    const auto head_of = [](const KeyValues& kv, int64_t head) {
        const ptrdiff_t bytes = head * kv.head_stride * (kv.bf16 ? 2 : 4);
        return Strided{static_cast<const char*>(kv.data) + bytes, kv.position_stride, kv.bf16};
    };
    // Few keys are done before a second thread has woken.
    const int64_t seen = window ? std::min(keys, window + tokens) : keys;
    const bool small = seen * tokens < 64;
    parallel_for(small ? 1 : threads, kv_heads * pieces, 1, [&](int64_t item, int thread) {
        // The latest pieces see the most keys: first, so that no thread ends up alone with one.
        const int64_t head = item % kv_heads, piece = pieces - 1 - item / kv_heads;
        const int first = int(piece) * together, n = std::min(together, tokens - first);
        const ptrdiff_t offset = first * q_stride + head * group * head_dim;
        kernels.attention({q + offset, out + offset, q_stride, sinks + head * group, head_of(k, head),
                           head_of(v, head), n, group, head_dim, keys - tokens + first, window,
                           scratch.get() + thread * scratch_size});
    });
}

} // namespace gptoss
