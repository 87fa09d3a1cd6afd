#include "sequence.h"

#include <algorithm>

#include "dense.h"
#include "memory.h"
#include "parallel.h"

namespace gptoss {
namespace {

// Rows of queries (tokens times heads) per task: more share the cost of transposing a block of keys, fewer fit the
// cache.
constexpr int kQueries = 64;
// From this many tokens on, more than one thread pays for the small operations.
constexpr int kFewTokens = 8;
// Keys per part for few queries, a multiple of kKeyBlock. Keys and values of all heads are then 512 KB in the published
// models, so that a second-level cache of 1 MB holds this part and the next.
constexpr int64_t kPartKeys = 256;
// From this many parts on, more than one thread pays for joining them.
constexpr int64_t kManyParts = 16;

} // namespace

void rms_norm(const Kernels& kernels, const float* x, const float* scale, int tokens, int columns, float eps,
              float* out) {
    kernels.count(Op::rms_norm);
    parallel_for(tokens < kFewTokens ? 1 : kernels.threads, tokens, 4, [&](int64_t t, int) {
        kernels.table.rms_norm(x + t * columns, scale, columns, eps, out + t * columns);
    });
}

void rope(const Kernels& kernels, const float* x, const float* cos, const float* sin, int tokens, int heads, int half,
          float* out) {
    kernels.count(Op::rope);
    const ptrdiff_t stride = ptrdiff_t(2) * heads * half;
    parallel_for(tokens < kFewTokens ? 1 : kernels.threads, tokens, 4, [&](int64_t t, int) {
        kernels.table.rope(x + t * stride, cos + t * half, sin + t * half, heads, half, out + t * stride);
    });
}

void attention(const Kernels& kernels, const float* q, const KeyValues& k, const KeyValues& v, const float* sinks,
               int tokens, int64_t keys, int kv_heads, int group, int head_dim, int64_t window, float* out) {
    const int threads = kernels.threads;
    kernels.count(Op::attention);
    const int together = std::clamp(kQueries / group, 1, tokens);
    const int64_t pieces = (tokens + together - 1) / together;
    const size_t scratch_size = attention_scratch(together * group, head_dim);
    const Buffer<float> scratch(scratch_size * threads);
    const ptrdiff_t q_stride = ptrdiff_t(kv_heads) * group * head_dim;
    const auto head_of = [](const KeyValues& kv, int64_t head) {
        const ptrdiff_t bytes = head * kv.head_stride * (kv.bf16 ? 2 : 4);
        return Strided{static_cast<const char*>(kv.data) + bytes, kv.position_stride, kv.bf16};
    };
    // Blocks begin at multiples of their size, so that a query's result does not depend on the queries computed with
    // it.
    const auto first_seen = [window](int64_t position) {
        return window && position >= window ? (position - window + 1) / kKeyBlock * kKeyBlock : 0;
    };
    // A small task is finished before a second thread has been woken.
    const int64_t seen = window ? std::min(keys, window + tokens) : keys;
    const bool small = seen * tokens < 64;
    const int workers = small ? 1 : threads;
    const auto task_of = [&](int64_t head, int thread) {
        AttentionTask task{};
        task.q_stride = q_stride, task.group = group, task.head_dim = head_dim, task.window = window;
        task.k = head_of(k, head), task.v = head_of(v, head);
        task.scratch = scratch.get() + thread * scratch_size;
        return task;
    };
    if (tokens < kGemmTokens) {
        // A task is a part of the keys and a head. All heads of a part follow each other, because their keys lie in the
        // same pages; parts make tasks for more threads than there are heads, and results independent of their number.
        const int64_t begin = first_seen(keys - tokens), parts = (keys - 1) / kPartKeys - begin / kPartKeys + 1;
        const int queries = tokens * group;
        const size_t part_size = size_t(queries) * (head_dim + 2);
        const Buffer<float> results(part_size * kv_heads * parts);
        parallel_for(workers, parts * kv_heads, 1, [&](int64_t item, int thread) {
            const int64_t head = item % kv_heads, part = item / kv_heads, from = (begin / kPartKeys + part) * kPartKeys;
            AttentionTask task = task_of(head, thread);
            task.q = q + head * group * head_dim, task.tokens = tokens, task.first_position = keys - tokens;
            task.begin = std::max(begin, from), task.end = std::min(keys, from + kPartKeys);
            task.part = results.get() + (head * parts + part) * part_size;
            if (from + 2 * kPartKeys <= keys && k.position_stride == v.position_stride && k.bf16 == v.bf16) {
                // Each head prefetches its share of the next part, of all heads.
                const int64_t bytes = k.position_stride * (k.bf16 ? 2 : 4), at = (from + kPartKeys) * bytes;
                task.next_bytes = size_t(kPartKeys * bytes / kv_heads);
                task.next_keys = static_cast<const char*>(k.data) + at + head * task.next_bytes;
                task.next_values = static_cast<const char*>(v.data) + at + head * task.next_bytes;
            }
            kernels.table.attention(task);
        });
        parallel_for(parts < kManyParts ? 1 : threads, kv_heads, 1, [&](int64_t head, int) {
            for (int t = 0; t < tokens; t++) {
                const float* first = results.get() + head * parts * part_size;
                kernels.table.join_attention(first, int(parts), part_size, queries, group, head_dim,
                                             sinks + head * group, t, out + t * q_stride + head * group * head_dim);
            }
        });
        return;
    }
    parallel_for(workers, kv_heads * pieces, 1, [&](int64_t item, int thread) {
        // The last pieces see the most keys, so they start first: no thread is left alone with one at the end.
        const int64_t head = item % kv_heads, piece = pieces - 1 - item / kv_heads;
        const int first = int(piece) * together, n = std::min(together, tokens - first);
        const ptrdiff_t offset = first * q_stride + head * group * head_dim;
        AttentionTask task = task_of(head, thread);
        task.q = q + offset, task.out = out + offset, task.sinks = sinks + head * group;
        task.tokens = n, task.first_position = keys - tokens + first;
        task.begin = first_seen(task.first_position), task.end = task.first_position + n;
        kernels.table.attention(task);
    });
}

} // namespace gptoss
