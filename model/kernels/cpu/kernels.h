// The table of kernels of one instruction-set level, and the conventions of all kernels.
//
// A kernel is a plain function on one thread. It allocates nothing, keeps no pointer and writes only its outputs; all
// memory belongs to the caller. Work is distributed to threads in `dense.cpp`, `experts.cpp` and `sequence.cpp`.
//
// Layouts. (rows, columns) is row-major; the last dimension is contiguous. A bfloat16 is a uint16_t. A group is 32
// columns of a row, or 32 activations, that share one scale.
//
// MXFP4 weights, as in the checkpoint: blocks (rows, groups, 16) bytes, columns 2j and 2j + 1 of a group in the low and
// the high half of byte j; scales (rows, groups), E8M0 bytes s that mean 2^(s - 127), 255 NaN. A code means one of 0,
// 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. The kernels decode it to twice its value, which is an integer (0, 1, 2,
// 3, 4, 6, 8, 12), and multiply by 0.5 where integers become floats: `mxfp4_rows` in its results, `unpack_mxfp4` in the
// panel's scales.
//
// Joined MXFP4 weights, as in GGUF files: (rows, groups, 17) bytes, of each group the scale and then the codes. Most
// files have columns j and j + 16 of a group in byte j: the kernels see them as columns 2j and 2j + 1, and the caller
// puts the activations into the same order.
//
// Activations for MXFP4 and 8-bit weights: int16 q (padded_groups(columns) * 32,) and float32 scales
// (padded_groups(columns),), x = q * scale; see `quantize`. Products are summed in int32 within a group, which is
// exact, and in float32 across groups.
//
// 8-bit weights, packed by `pack_int8`: panels of 32 rows, each weights (groups, 8, 32, 4) int8, indexed [group][four
// neighbouring columns][row][column of the four, in the order 0 2 1 3], and scales (groups, 32) bfloat16; a weight is
// its integer times the scale. With this order of the four, shifts of 16-bit lanes extract columns 0 and 1, or 2 and 3,
// as a pair of 16-bit integers.
//
// Unpacked panels, for many tokens: int16 (groups, 16, 32, 2), indexed [group][pair of neighbouring columns][row]
// [column of the pair], and float32 scales (groups, 32).
#pragma once
#include <cstddef>
#include <cstdint>

namespace gptoss {

constexpr int kGroup = 32;         // columns that share a scale, of weights and of activations
constexpr int kBlockBytes = 16;    // bytes of the codes of one MXFP4 group
constexpr int kJoinedBytes = kBlockBytes + 1; // bytes of a group of joined MXFP4 weights
constexpr int kPanelRows = 32;     // rows of a panel
constexpr int kPairs = kGroup / 2; // pairs of neighbouring columns in a group
constexpr int kArrangedBytes = 80; // bytes per group of arranged activations, see KernelTable::arrange
constexpr int kPad = 16;           // activations are padded with zeros to a multiple of this many groups

inline int padded_groups(int columns) { return ((columns + kGroup - 1) / kGroup + kPad - 1) / kPad * kPad; }

// Keys or values of one head: (positions, head_dim); position p begins at `data + p * stride`, in elements.
struct Strided {
    const void* data;
    ptrdiff_t stride;
    bool bf16; // else float32
};

// Queries of consecutive tokens, of the `group` query heads that share one key head, against a range of keys.
struct AttentionTask {
    const float* q;         // (tokens, group, head_dim), token stride `q_stride`
    float* out;             // as q; written unless `part` is set
    ptrdiff_t q_stride;     // in elements
    const float* sinks;     // (group,), logits of keys without values; not read if `part` is set
    Strided k, v;
    int tokens, group, head_dim; // head_dim is a multiple of 16
    int64_t first_position; // of the first query
    int64_t window;         // positions that a query sees, its own included; 0 for all
    int64_t begin, end;     // range of keys; those that a query does not see are masked
    float* scratch;         // attention_scratch(tokens * group, head_dim) floats
    // If the range is only a part of the keys: where to write the state of the online softmax for `join_attention`.
    // With queries = tokens * group: unscaled output (queries, head_dim), largest score (queries,), sum of exponentials
    // (queries,). Null if the range has all keys.
    float* part;
    // Memory to prefetch, `next_bytes` each: keys and values that this thread will probably read next. Null for none.
    const void *next_keys, *next_values;
    size_t next_bytes;
};

constexpr int kKeyBlock = 64; // keys that are computed together
inline size_t attention_scratch(int queries, int head_dim) {
    return size_t(2) * kKeyBlock * head_dim + size_t(queries) * (kKeyBlock + head_dim + 2);
}

struct KernelTable {
    const char* name;

    // Converts activations x (columns,) to integers. Of each group, the largest magnitude becomes 32639 = 127 * 256 +
    // 127, so that every integer is 256 * high + low with high and low in int8. q and scales are padded with zeros up
    // to padded_groups(columns). NaN or infinity in a group makes its scale, and so every product, NaN or infinite.
    void (*quantize)(const float* x, int columns, int16_t* q, float* scales);
    // Reorders q (groups * 32,) as this level's `mxfp4_rows` reads it (see simd.h): kArrangedBytes per group. `groups`
    // is a multiple of kPad.
    void (*arrange)(const int16_t* q, int groups, int8_t* arranged);

    // out[r] = MXFP4 row r times x: blocks (rows, groups, 16), scales (rows, groups), out (rows,). `arranged` and
    // `x_scales` are padded.
    void (*mxfp4_rows)(const uint8_t* blocks, const uint8_t* scales, int rows, int groups, const int8_t* arranged,
                       const float* x_scales, float* out);
    // The same for `count` joined weights of `rows` rows each, parts[p] (rows, groups, 17): out (count, rows).
    void (*joined_rows)(const uint8_t* const* parts, int count, int rows, int groups, const int8_t* arranged,
                        const float* x_scales, float* out);
    // out[r] = row r of one 8-bit panel times x: weights (groups, 8, 32, 4), scales (groups, 32), q (groups * 32,),
    // x_scales (groups,), out (32,).
    void (*int8_panel)(const int8_t* weights, const uint16_t* scales, int groups, const int16_t* q,
                       const float* x_scales, float* out);
    // out[r] = bfloat16 row r times x in float32: weights (rows, columns), x (columns,), out (rows,).
    void (*bf16_rows)(const uint16_t* weights, int rows, int columns, const float* x, float* out);
    // out[t * out_stride + r] = row r times x[t], for several tokens: x (tokens, columns).
    void (*bf16_block)(const uint16_t* weights, int rows, int columns, const float* x, int tokens, float* out,
                       ptrdiff_t out_stride);

    // Unpacks the first `groups` groups of up to 32 MXFP4 rows, which are `row_groups` groups apart, into a panel
    // (groups, 16, 32, 2) of doubled values and panel_scales (groups, 32), half the weights' scales. Rows from `rows`
    // on become zero.
    void (*unpack_mxfp4)(const uint8_t* blocks, const uint8_t* scales, int rows, int row_groups, int groups,
                         int16_t* panel, float* panel_scales);
    // The same for `groups` groups of `count` rows of joined weights, each at rows[r].
    void (*unpack_joined)(const uint8_t* const* rows, int count, int groups, int16_t* panel, float* panel_scales);
    // The same for an 8-bit panel: weights (groups, 8, 32, 4), scales (groups, 32); panel_scales are its scales.
    void (*unpack_int8)(const int8_t* weights, const uint16_t* scales, int groups, int16_t* panel,
                        float* panel_scales);
    // acc[t * 32 + r] += panel row r times token t over `groups` groups: q[t] (groups * 32,), x_scales[t] (groups,).
    void (*panel_gemm)(const int16_t* panel, const float* panel_scales, int groups, const int16_t* const* q,
                       const float* const* x_scales, int tokens, float* acc);

    // Packs up to 32 rows of a bfloat16 matrix (rows, columns) as an 8-bit panel: packed (groups, 8, 32, 4), scales
    // (groups, 32). A scale is the largest magnitude of its 32 weights divided by 127, rounded up to bfloat16. Rows
    // from `rows` on, and columns that fill up the last group, become zero. All levels give the same bytes.
    void (*pack_int8)(const uint16_t* weights, int rows, int columns, int8_t* packed, uint16_t* scales);

    // The clamped SwiGLU of gpt-oss: x (width, 2), gate and up interleaved, out (width,). With gate = min(x[i][0],
    // limit) and up = clamp(x[i][1], -limit, limit), out[i] = gate * sigmoid(alpha * gate) * (up + 1). NaN passes the
    // clamps.
    void (*swiglu)(const float* x, int width, float alpha, float limit, float* out);
    // out = x / sqrt(mean(x^2) + eps) * scale, all (columns,).
    void (*rms_norm)(const float* x, const float* scale, int columns, float eps, float* out);
    // Rotates the pairs (i, i + half) of each head of one token: x and out (heads, 2 * half), cos and sin (half,).
    void (*rope)(const float* x, const float* cos, const float* sin, int heads, int half, float* out);
    void (*attention)(const AttentionTask& task);
    // Joins `count` parts (see AttentionTask::part), `stride` floats apart and of `queries` queries each, and the sinks
    // (group,), for the heads of one token: out (group, head_dim).
    void (*join_attention)(const float* parts, int count, size_t stride, int queries, int group, int head_dim,
                           const float* sinks, int token, float* out);
    // A plain read loop: the sum of the data as 64-bit words modulo 2^64, the last word padded with zero bytes.
    uint64_t (*read_once)(const void* data, size_t bytes);
};

} // namespace gptoss
