// The operations between the matrices: norm, rotary positions, attention.
#pragma once
#include "dispatch.h"

namespace gptoss {

// x and out (tokens, columns), scale (columns,).
void rms_norm(const Kernels& kernels, const float* x, const float* scale, int tokens, int columns, float eps,
              float* out);

// x and out (tokens, heads, 2 * half), cos and sin (tokens, half).
void rope(const Kernels& kernels, const float* x, const float* cos, const float* sin, int tokens, int heads, int half,
          float* out);

// Keys or values: (positions, kv_heads, head_dim), strides in elements, the last dimension contiguous.
struct KeyValues {
    const void* data;
    bool bf16;
    ptrdiff_t position_stride, head_stride;
};

// Causal attention of the last `tokens` of `keys` positions: q and out (tokens, kv_heads * group, head_dim); query head
// h reads key head h / group; sinks (kv_heads * group,); window: positions that a query sees, 0 for all.
void attention(const Kernels& kernels, const float* q, const KeyValues& k, const KeyValues& v, const float* sinks,
               int tokens, int64_t keys, int kv_heads, int group, int head_dim, int64_t window, float* out);

} // namespace gptoss
