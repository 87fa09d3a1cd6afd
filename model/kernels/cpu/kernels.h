// The table of kernels that exists once for every instruction set; `dispatch.h` chooses one at run time.
//
// A kernel is a plain function of (out, in, weights, sizes) on one thread; the threads are shared out in `dense.cpp`,
// `experts.cpp` and `sequence.cpp`. Shapes are written (rows, columns), row-major.
#pragma once
#include <cstddef>
#include <cstdint>

namespace gptoss {

constexpr int kGroup = 32;         // values that share a scale, of weights as of activations
constexpr int kBlockBytes = 16;    // of the values of one MXFP4 block
constexpr int kPanelRows = 32;     // rows that are multiplied together
constexpr int kPairs = kGroup / 2; // pairs of neighbouring columns in a group
constexpr int kArrangedBytes = 80; // of a group of activations, see Kernels::arrange
constexpr int kPad = 16;           // groups: activations are padded to a multiple of this many

inline int padded_groups(int columns) { return ((columns + kGroup - 1) / kGroup + kPad - 1) / kPad * kPad; }

// Keys or values of one head: position p begins at `data + p * stride`, in elements.
struct Strided {
    const void* data;
    ptrdiff_t stride;
    bool bf16; // else float32
};

// One head's queries against a range of keys; the queries are consecutive in time, `group` heads each.
struct AttentionTask {
    const float* q;         // (tokens, group, head_dim), token stride `q_stride`
    float* out;             // as q
    ptrdiff_t q_stride;
    const float* sinks;     // (group,)
    Strided k, v;
    int tokens, group, head_dim;
    int64_t first_position; // of the first query
    int64_t window;         // positions a query sees, its own included; 0 for all
    int64_t begin, end;     // of the keys; what a query does not see of them is left out
    float* scratch;         // attention_scratch(tokens * group, head_dim) floats
    // Of a part of the keys: the softmax as far as it has come, (tokens * group, head_dim + 2): the sums, the largest
    // score, the total. Null where these are all keys; then `out` is written.
    float* part;
    // What the thread comes to next, keys and values, to be asked for meanwhile; null for nothing.
    const void *next_keys, *next_values;
    size_t next_bytes;
};

constexpr int kKeyBlock = 64;
inline size_t attention_scratch(int queries, int head_dim) {
    return size_t(2) * kKeyBlock * head_dim + size_t(queries) * (kKeyBlock + head_dim + 2);
}

struct KernelTable {
    const char* name;

    // Activations as 16-bit integers, one scale a group: x ~ q * scale. The last group is padded with zeros, up to
    // padded_groups. NaN and infinity make the scale, and so every product, not-a-number or infinite.
    void (*quantize)(const float* x, int columns, int16_t* q, float* scales);
    // The same integers in the order in which this level's `mxfp4_rows` meets them: kArrangedBytes for each group.
    void (*arrange)(const int16_t* q, int groups, int8_t* arranged);

    // out[r] = sum of row r times x, for MXFP4 rows in the checkpoint's own layout: blocks (rows, groups, 16), scales
    // (rows, groups).
    void (*mxfp4_rows)(const uint8_t* blocks, const uint8_t* scales, int rows, int groups, const int8_t* arranged,
                       const float* x_scales, float* out);
    // out[32] = sums of the rows of one int8 panel: weights (groups, 8, 32, 4), columns in each four in the order 0 2 1
    // 3; scales bfloat16 (groups, 32).
    void (*int8_panel)(const int8_t* weights, const uint16_t* scales, int groups, const int16_t* q,
                       const float* x_scales, float* out);
    // out[r] = sum of bfloat16 row r times x, in float32.
    void (*bf16_rows)(const uint16_t* weights, int rows, int columns, const float* x, float* out);
    // out[t * out_stride + r], the same for several tokens; x (tokens, columns).
    void (*bf16_block)(const uint16_t* weights, int rows, int columns, const float* x, int tokens, float* out,
                       ptrdiff_t out_stride);

    // The weights of 32 rows as 16-bit pairs, (groups, 16, 32, 2), and float32 scales, (groups, 32). Rows beyond
    // `rows` become zero. `row_groups` is the length of a row in groups.
    void (*unpack_mxfp4)(const uint8_t* blocks, const uint8_t* scales, int rows, int row_groups, int groups,
                         int16_t* panel, float* panel_scales);
    void (*unpack_int8)(const int8_t* weights, const uint16_t* scales, int groups, int16_t* panel,
                        float* panel_scales);
    // acc[t * 32 + r] += sum over `groups` of panel row r times token t.
    void (*panel_gemm)(const int16_t* panel, const float* panel_scales, int groups, const int16_t* const* q,
                       const float* const* x_scales, int tokens, float* acc);

    // The 32 rows of a bfloat16 matrix as an int8 panel; see `int8_panel`. Rows beyond `rows` become zero.
    void (*pack_int8)(const uint16_t* weights, int rows, int columns, int8_t* packed, uint16_t* scales);

    // out[i] from gate x[2i] and up x[2i + 1]: the clamped SwiGLU of gpt-oss.
    void (*swiglu)(const float* x, int width, float alpha, float limit, float* out);
    void (*rms_norm)(const float* x, const float* scale, int columns, float eps, float* out);
    // Rotate pairs (i, i + half) of each head.
    void (*rope)(const float* x, const float* cos, const float* sin, int heads, int half, float* out);
    void (*attention)(const AttentionTask& task);
    // Joins `count` parts, `stride` floats apart and of `queries` each, with the sinks (group,), for the group of heads
    // of one token: out (group, head_dim).
    void (*join_attention)(const float* parts, int count, size_t stride, int queries, int group, int head_dim,
                           const float* sinks, int token, float* out);
    // A plain read loop: the sum of the data as 64-bit words modulo 2^64, the last word padded with zero bytes.
    uint64_t (*read_once)(const void* data, size_t bytes);
};

} // namespace gptoss
