// All kernels, written once; each `isa_*.cpp` includes this file and is compiled with the flags of its level. See
// kernels.h for what each kernel computes, and for the layouts.
#include "simd.h"

namespace gptoss::GPTOSS_ISA {

// Weights are prefetched so many bytes ahead, because the hardware prefetcher stops at the end of each page.
constexpr int kAhead = 4096;
inline void prefetch(const void* p) { __builtin_prefetch(static_cast<const char*>(p) + kAhead, 0, 0); }

// --- activations ----------------------------------------------------------------------------------------------------

// The largest integer that is 256 * high + low with high and low in int8, as AVX-512's `arrange` splits it.
constexpr float kLargest = 127 * 256 + 127;

void quantize(const float* x, int columns, int16_t* q, float* scales) {
    const int groups = (columns + kGroup - 1) / kGroup, padded = padded_groups(columns);
    for (int g = 0; g < groups; g++) {
        float values[kGroup] = {};
        const int n = columns - g * kGroup < kGroup ? columns - g * kGroup : kGroup;
        std::memcpy(values, x + g * kGroup, n * sizeof(float));
        // Bit patterns compared as integers: NaN counts as the largest and so reaches the scale.
        I largest_bits = {};
        for (int i = 0; i < kGroup; i += W)
            largest_bits = max_int(largest_bits, as_int(load(values + i)) & 0x7fffffff);
        const int32_t bits = max_lane_int(largest_bits);
        float largest;
        std::memcpy(&largest, &bits, 4);
        scales[g] = largest * (1.0f / kLargest);
        const float inverse = largest > 1e-30f ? kLargest / largest : 0.0f;
        const F magic = set1(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer, in the low bits of the sum
        for (int i = 0; i < kGroup; i += W) {
            I rounded = as_int(load(values + i) * inverse + magic) - as_int(magic);
            store_as_16_bits(q + g * kGroup + i, rounded);
        }
    }
    std::memset(q + groups * kGroup, 0, size_t(padded - groups) * kGroup * sizeof *q);
    for (int g = groups; g < padded; g++) scales[g] = 0.0f;
}

// --- one token: rows of weights, each read once ----------------------------------------------------------------------

// Adds step n of a chunk of W blocks to acc[r], for R rows of doubled values times the same activations. A step is
// kStepBlocks blocks; if not `whole`, only the first `count` of them exist. factors[r]: weight scale times activation
// scale of each block of the chunk. next: memory of later rows to prefetch, the cache lines in order.
template <int n, int R, bool whole>
inline void mxfp4_step(F* acc, const uint8_t* const* rows, const int8_t* arranged, const F* factors, int count,
                       const uint8_t* next) {
    if (!whole && count <= 0) return;
    const StepActivations x = load_step(arranged + n * kStepBytes);
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
        const uint8_t* blocks = rows[r] + n * kStepBlocks * kBlockBytes;
        __builtin_prefetch(next + (n * R + r) * kStepBlocks * kBlockBytes, 0, 0);
        const I dot = whole || count >= kStepBlocks ? step_dot(blocks, x) : part_of_step_dot(blocks, count, x);
        acc[r] = acc[r] + to_float(dot) * step_scales<n>(factors[r]);
    }
}

template <int R>
inline void mxfp4_some_rows(const uint8_t* blocks, const uint8_t* scales, int groups, const int8_t* arranged,
                            const float* x_scales, float* out) {
    F acc[R] = {}, factors[R];
    const uint8_t* rows[R];
    // Prefetch what comes after the next R rows: each line once, in order, and early enough.
    const size_t ahead = size_t(2 * R) * groups;
    const uint8_t* next = blocks + ahead * kBlockBytes;
    for (int g = 0; g < groups; g += W) {
        const int count = groups - g < W ? groups - g : W;
        const F x_factor = load(x_scales + g);
        __builtin_prefetch(scales + ahead + g * R, 0, 0);
        const int8_t* x = arranged + g * kArrangedBytes;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) {
            const size_t at = r * size_t(groups) + g;
            rows[r] = blocks + at * kBlockBytes;
            factors[r] = load_e8m0(scales + at, count) * x_factor;
        }
        if (count == W) {
            mxfp4_step<0, R, true>(acc, rows, x, factors, 0, next);
            mxfp4_step<1, R, true>(acc, rows, x, factors, 0, next);
            mxfp4_step<2, R, true>(acc, rows, x, factors, 0, next);
            mxfp4_step<3, R, true>(acc, rows, x, factors, 0, next);
        } else {
            mxfp4_step<0, R, false>(acc, rows, x, factors, count, next);
            mxfp4_step<1, R, false>(acc, rows, x, factors, count - kStepBlocks, next);
            mxfp4_step<2, R, false>(acc, rows, x, factors, count - 2 * kStepBlocks, next);
            mxfp4_step<3, R, false>(acc, rows, x, factors, count - 3 * kStepBlocks, next);
        }
        next += 4 * R * kStepBlocks * kBlockBytes;
    }
    for (int r = 0; r < R; r++) out[r] = 0.5f * sum(acc[r]); // the codes were decoded to twice their values
}

void mxfp4_rows(const uint8_t* blocks, const uint8_t* scales, int rows, int groups, const int8_t* arranged,
                const float* x_scales, float* out) {
    constexpr int R = 4;
    int r = 0;
    for (; r + R <= rows; r += R)
        mxfp4_some_rows<R>(blocks + size_t(r) * groups * kBlockBytes, scales + size_t(r) * groups, groups,
                           arranged, x_scales, out + r);
    for (; r < rows; r++)
        mxfp4_some_rows<1>(blocks + size_t(r) * groups * kBlockBytes, scales + size_t(r) * groups, groups,
                           arranged, x_scales, out + r);
}

// Joined blocks are prefetched so many bytes apart. A step may have more than a cache line: the rest of a chunk is
// prefetched beside its steps.
constexpr int kStepJoined = kStepBlocks * kJoinedBytes, kJoinedAhead = kStepJoined < 64 ? kStepJoined : 64;

// Adds step n of a chunk of W joined blocks to acc[r], as `mxfp4_step` does.
template <int n, int R, bool whole>
inline void joined_step(F* acc, const uint8_t* row, size_t row_bytes, const int8_t* arranged, const F* factors,
                        int count, const uint8_t* next) {
    if (!whole && count <= 0) return;
    const StepActivations x = load_step(arranged + n * kStepBytes);
    row += n * kStepBlocks * kJoinedBytes;
#pragma GCC unroll 4
    for (int r = 0; r < R; r++, row += row_bytes) {
        __builtin_prefetch(next + (n * R + r) * kJoinedAhead, 0, 0);
        const I dot = whole || count >= kStepBlocks ? joined_dot<true>(row, 0, x) : joined_dot<false>(row, count, x);
        acc[r] = acc[r] + to_float(dot) * step_scales<n>(factors[r]);
    }
}

template <int R>
inline void joined_some_rows(const uint8_t* joined, size_t ahead, int groups, const int8_t* arranged,
                             const float* x_scales, float* out) {
    F acc[R] = {}, factors[R];
    const size_t row_bytes = size_t(groups) * kJoinedBytes;
    const uint8_t* next = joined + ahead;
    for (int g = 0; g < groups; g += W) {
        const int count = groups - g < W ? groups - g : W;
        const F x_factor = load(x_scales + g);
        const int8_t* x = arranged + g * kArrangedBytes;
        const uint8_t* row = joined + size_t(g) * kJoinedBytes;
#pragma GCC unroll 4
        for (int r = 0; r < R; r++) factors[r] = joined_scales(row + r * row_bytes, count) * x_factor;
        for (int rest = 4 * R * kJoinedAhead; rest < 4 * R * kStepJoined; rest += kJoinedAhead)
            __builtin_prefetch(next + rest, 0, 0);
        if (count == W) {
            joined_step<0, R, true>(acc, row, row_bytes, x, factors, 0, next);
            joined_step<1, R, true>(acc, row, row_bytes, x, factors, 0, next);
            joined_step<2, R, true>(acc, row, row_bytes, x, factors, 0, next);
            joined_step<3, R, true>(acc, row, row_bytes, x, factors, 0, next);
        } else {
            joined_step<0, R, false>(acc, row, row_bytes, x, factors, count, next);
            joined_step<1, R, false>(acc, row, row_bytes, x, factors, count - kStepBlocks, next);
            joined_step<2, R, false>(acc, row, row_bytes, x, factors, count - 2 * kStepBlocks, next);
            joined_step<3, R, false>(acc, row, row_bytes, x, factors, count - 3 * kStepBlocks, next);
        }
        next += 4 * R * kStepJoined;
    }
    for (int r = 0; r < R; r++) out[r] = 0.5f * sum(acc[r]); // the codes were decoded to twice their values
}

void joined_rows(const uint8_t* const* parts, int count, int rows, int groups, const int8_t* arranged,
                 const float* x_scales, float* out) {
    constexpr int R = 4;
    const size_t row_bytes = size_t(groups) * kJoinedBytes;
    // The parts by turns: one after the other, what was prefetched of one is evicted while the other is read.
    const size_t ahead = 2 * R * row_bytes;
    int r = 0;
    for (; r + R <= rows; r += R)
        for (int p = 0; p < count; p++)
            joined_some_rows<R>(parts[p] + r * row_bytes, ahead, groups, arranged, x_scales, out + p * rows + r);
    for (; r < rows; r++)
        for (int p = 0; p < count; p++)
            joined_some_rows<1>(parts[p] + r * row_bytes, ahead, groups, arranged, x_scales, out + p * rows + r);
}

// From four int8 per 32-bit lane in the order 0 2 1 3: columns 0 and 1, or 2 and 3, as pairs of int16.
inline I first_pair(I bytes) { return (I)((S)((S)bytes << 8) >> 8); }
inline I second_pair(I bytes) { return (I)((S)bytes >> 8); }

void int8_panel(const int8_t* weights, const uint16_t* scales, int groups, const int16_t* q, const float* x_scales,
                float* out) {
    constexpr int V = kPanelRows / W;
    F acc[V] = {};
    for (int g = 0; g < groups; g++) {
        I dot[V] = {};
        const int8_t* w = weights + size_t(g) * kGroup * kPanelRows;
        for (int four = 0; four < kGroup / 4; four++) {
            const I x0 = set1_pair(q + g * kGroup + 4 * four), x1 = set1_pair(q + g * kGroup + 4 * four + 2);
            for (int v = 0; v < V; v++) {
                const int8_t* p = w + (four * kPanelRows + v * W) * 4;
                if (v * W * 4 % 64 == 0) prefetch(p);
                const I bytes = load_as<I>(p);
                dot[v] = dot_pairs(dot[v], first_pair(bytes), x0);
                dot[v] = dot_pairs(dot[v], second_pair(bytes), x1);
            }
        }
        for (int v = 0; v < V; v++)
            acc[v] = acc[v] + to_float(dot[v]) * (load_bf16(scales + g * kPanelRows + v * W) * x_scales[g]);
    }
    for (int v = 0; v < V; v++) store(out + v * W, acc[v]);
}

// out[t * out_stride + r] for R rows and T tokens; weights (R, columns), x (T, columns).
template <int R, int T>
inline void bf16_tile(const uint16_t* weights, int columns, const float* x, float* out, ptrdiff_t out_stride) {
    F acc[R][T] = {};
    int c = 0;
    for (; c + W <= columns; c += W) {
        F w[R];
#pragma GCC unroll 8
        for (int r = 0; r < R; r++) {
            w[r] = load_bf16(weights + size_t(r) * columns + c);
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const F xt = load(x + size_t(t) * columns + c);
#pragma GCC unroll 8
            for (int r = 0; r < R; r++) acc[r][t] = acc[r][t] + w[r] * xt;
        }
    }
    for (int r = 0; r < R; r++)
        for (int t = 0; t < T; t++) {
            float total = sum(acc[r][t]);
            for (int i = c; i < columns; i++)
                total += bf16_to_float(weights[size_t(r) * columns + i]) * x[size_t(t) * columns + i];
            out[t * out_stride + r] = total;
        }
}

// One row after the other, a single stream through memory; N sums hide the latency of the additions.
void bf16_rows(const uint16_t* weights, int rows, int columns, const float* x, float* out) {
    constexpr int N = 64 / W;
    for (int r = 0; r < rows; r++, weights += columns) {
        F acc[N] = {};
        int c = 0;
        for (; c + N * W <= columns; c += N * W) {
            prefetch(weights + c);
            prefetch(weights + c + 32);
            for (int i = 0; i < N; i++)
                acc[i] = acc[i] + load_bf16(weights + c + i * W) * load(x + c + i * W);
        }
        for (; c + W <= columns; c += W) acc[0] = acc[0] + load_bf16(weights + c) * load(x + c);
        for (int i = 1; i < N; i++) acc[0] = acc[0] + acc[i];
        float total = sum(acc[0]);
        for (; c < columns; c++) total += bf16_to_float(weights[c]) * x[c];
        out[r] = total;
    }
}

// --- several tokens --------------------------------------------------------------------------------------------------

template <int n> struct Tile {
    static constexpr int size = n;
};
// Calls f(Tile<T>, t) for every T tokens, and once with a smaller tile for the tokens that are left: one by one, each
// would read all weights again.
template <int T, class Function> inline void last_tile(int left, int t, const Function& f) {
    if constexpr (T > 0) {
        if (left == T)
            f(Tile<T>{}, t);
        else
            last_tile<T - 1>(left, t, f);
    }
}
template <int T, class Function> inline void for_tiles(int tokens, const Function& f) {
    int t = 0;
    for (; t + T <= tokens; t += T) f(Tile<T>{}, t);
    last_tile<T - 1>(tokens - t, t, f);
}

// The same for any number of rows and T tokens.
template <int T>
inline void bf16_columns(const uint16_t* weights, int rows, int columns, const float* x, float* out,
                         ptrdiff_t out_stride) {
    constexpr int R = W == 16 ? 4 : 2;
    int r = 0;
    for (; r + R <= rows; r += R)
        bf16_tile<R, T>(weights + size_t(r) * columns, columns, x, out + r, out_stride);
    for (; r < rows; r++) bf16_tile<1, T>(weights + size_t(r) * columns, columns, x, out + r, out_stride);
}

void bf16_block(const uint16_t* weights, int rows, int columns, const float* x, int tokens, float* out,
                ptrdiff_t out_stride) {
    for_tiles<W == 16 ? 6 : 4>(tokens, [&](auto tile, int t) {
        bf16_columns<tile.size>(weights, rows, columns, x + size_t(t) * columns, out + t * out_stride, out_stride);
    });
}

// Decodes one group of W rows to doubled values: rows[r] (16,) bytes, pair j of row r to out[(j * kPanelRows + r) * 2].
inline void unpack_group(const uint8_t* const* rows, int16_t* out) {
#if defined(__AVX512VBMI__)
    const __m512i values = _mm512_set_epi16(-12, -8, -6, -4, -3, -2, -1, 0, 12, 8, 6, 4, 3, 2, 1, 0, -12, -8, -6, -4,
                                            -3, -2, -1, 0, 12, 8, 6, 4, 3, 2, 1, 0);
    // Rows i, i + 4, i + 8, i + 12 in the 128-bit lanes of a[i]: 4 by 4 transpositions of dwords within lanes then put
    // row r in dword r.
    __m512i a[4];
    for (int i = 0; i < 4; i++) {
        __m512i v = _mm512_castsi128_si512(load_as<__m128i>(rows[i]));
        v = _mm512_inserti32x4(v, load_as<__m128i>(rows[i + 4]), 1);
        v = _mm512_inserti32x4(v, load_as<__m128i>(rows[i + 8]), 2);
        a[i] = _mm512_inserti32x4(v, load_as<__m128i>(rows[i + 12]), 3);
    }
    const __m512i t0 = _mm512_unpacklo_epi32(a[0], a[1]), t1 = _mm512_unpackhi_epi32(a[0], a[1]);
    const __m512i t2 = _mm512_unpacklo_epi32(a[2], a[3]), t3 = _mm512_unpackhi_epi32(a[2], a[3]);
    const __m512i dword[4] = {_mm512_unpacklo_epi64(t0, t2), _mm512_unpackhi_epi64(t0, t2),
                              _mm512_unpacklo_epi64(t1, t3), _mm512_unpackhi_epi64(t1, t3)};
    // Moves byte b of each dword to bit 0, and its high half to bit 16. vpermw looks at five bits of an index; the
    // table holds the sixteen values twice, so that the fifth does not matter.
    const __m512i even = _mm512_set1_epi64(0x2424202004040000);
    for (int d = 0; d < 4; d++)
        for (int b = 0; b < 4; b++) {
            const __m512i shifts = _mm512_add_epi8(even, _mm512_set1_epi8(char(8 * b)));
            const __m512i codes = _mm512_multishift_epi64_epi8(shifts, dword[d]);
            _mm512_storeu_si512(out + (4 * d + b) * 2 * kPanelRows, _mm512_permutexvar_epi16(codes, values));
        }
#elif defined(__AVX2__)
    const __m128i values = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
    const __m128i nibble = _mm_set1_epi8(15);
    __m256i pairs[2][8]; // [half][row]: the first, or the last, eight pairs of a row
    for (int r = 0; r < 8; r++) {
        const __m128i codes = load_as<__m128i>(rows[r]);
        const __m128i low = _mm_shuffle_epi8(values, _mm_and_si128(codes, nibble));
        const __m128i high = _mm_shuffle_epi8(values, _mm_and_si128(_mm_srli_epi16(codes, 4), nibble));
        pairs[0][r] = _mm256_cvtepi8_epi16(_mm_unpacklo_epi8(low, high));
        pairs[1][r] = _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(low, high));
    }
    for (int half = 0; half < 2; half++) {
        const __m256i* p = pairs[half];
        __m256i t[8], u[8];
        for (int i = 0; i < 4; i++) {
            t[2 * i] = _mm256_unpacklo_epi32(p[2 * i], p[2 * i + 1]);
            t[2 * i + 1] = _mm256_unpackhi_epi32(p[2 * i], p[2 * i + 1]);
        }
        for (int i = 0; i < 2; i++) {
            u[4 * i] = _mm256_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
            u[4 * i + 1] = _mm256_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
            u[4 * i + 2] = _mm256_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
            u[4 * i + 3] = _mm256_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
        }
        for (int j = 0; j < 4; j++) {
            int16_t* to = out + (8 * half + j) * 2 * kPanelRows;
            store_as(to, _mm256_permute2x128_si256(u[j], u[4 + j], 0x20));
            store_as(to + 4 * 2 * kPanelRows, _mm256_permute2x128_si256(u[j], u[4 + j], 0x31));
        }
    }
#else
    static const int16_t value[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
    for (int r = 0; r < W; r++)
        for (int j = 0; j < kPairs; j++) {
            int16_t* to = out + (j * kPanelRows + r) * 2;
            to[0] = value[rows[r][j] & 15];
            to[1] = value[rows[r][j] >> 4];
        }
#endif
}

// Half the scales of 32 MXFP4 rows, because codes are decoded to twice their values: out (groups, 32). eight(r, g)
// returns the scales of groups g to g + 7 of row r, one(r, g) that of group g.
template <class Eight, class One>
inline void unpack_scales(const Eight& eight_scales, const One& one, int rows, int groups, float* out) {
    int g = 0;
#if defined(__AVX512VBMI__)
    for (; rows == kPanelRows && g + 8 <= groups; g += 8)
        for (int v = 0; v < kPanelRows; v += W) {
            // Transpose eight bytes of each of sixteen rows to sixteen bytes of each of eight groups.
            uint64_t eight[W];
            for (int r = 0; r < W; r++) eight[r] = eight_scales(v + r, g);
            const __m512i first = _mm512_loadu_si512(eight), second = _mm512_loadu_si512(eight + 8);
            const __m512i columns = _mm512_set_epi64(0x7870686058504840, 0x3830282018100800, 0x7870686058504840,
                                                     0x3830282018100800, 0x7870686058504840, 0x3830282018100800,
                                                     0x7870686058504840, 0x3830282018100800);
            const __m512i lane = _mm512_set_epi64(0x0303030303030303, 0x0303030303030303, 0x0202020202020202,
                                                  0x0202020202020202, 0x0101010101010101, 0x0101010101010101, 0, 0);
            for (int half = 0; half < 2; half++) {
                const __m512i index =
                    _mm512_add_epi8(columns, _mm512_add_epi8(lane, _mm512_set1_epi8(char(4 * half))));
                uint8_t turned[64];
                _mm512_storeu_si512(turned, _mm512_permutex2var_epi8(first, index, second));
                for (int i = 0; i < 4; i++)
                    store(out + (g + 4 * half + i) * kPanelRows + v,
                          power_of_two(load_as<QuarterU>(turned + 16 * i)) * 0.5f);
            }
        }
#endif
    for (; g < groups; g++) {
        uint8_t exponents[kPanelRows] = {};
        for (int r = 0; r < rows; r++) exponents[r] = one(r, g);
        for (int v = 0; v < kPanelRows; v += W)
            store(out + g * kPanelRows + v, power_of_two(load_as<QuarterU>(exponents + v)) * 0.5f);
    }
}

void unpack_mxfp4(const uint8_t* blocks, const uint8_t* scales, int rows, int row_groups, int groups, int16_t* panel,
                  float* panel_scales) {
    static const uint8_t zeros[kBlockBytes] = {};
    const auto eight = [&](int r, int g) { return load_as<uint64_t>(scales + size_t(r) * row_groups + g); };
    unpack_scales(eight, [&](int r, int g) { return scales[size_t(r) * row_groups + g]; }, rows, groups, panel_scales);
    for (int g = 0; g < groups; g++)
        for (int v = 0; v < kPanelRows; v += W) {
            const uint8_t* from[W];
            for (int r = 0; r < W; r++)
                from[r] = v + r < rows ? blocks + (size_t(v + r) * row_groups + g) * kBlockBytes : zeros;
            unpack_group(from, panel + (size_t(g) * kPairs * kPanelRows + v) * 2);
        }
}

void unpack_joined(const uint8_t* const* rows, int count, int groups, int16_t* panel, float* panel_scales) {
    static const uint8_t zeros[kBlockBytes] = {};
    const auto eight = [&](int r, int g) {
        const uint8_t* p = rows[r] + g * kJoinedBytes;
#if defined(__AVX512VBMI__)
        const __m512i first = load_as<__m512i>(p), second = load_as<__m512i>(p + 4 * kJoinedBytes);
        const __m512i places = _mm512_set1_epi64(0x7362514033221100);
        return uint64_t(_mm_cvtsi128_si64(_mm512_castsi512_si128(_mm512_permutex2var_epi8(first, places, second))));
#else
        return uint64_t(p[0]);
#endif
    };
    unpack_scales(eight, [&](int r, int g) { return rows[r][g * kJoinedBytes]; }, count, groups, panel_scales);
    for (int g = 0; g < groups; g++)
        for (int v = 0; v < kPanelRows; v += W) {
            const uint8_t* from[W];
            for (int r = 0; r < W; r++) from[r] = v + r < count ? rows[v + r] + g * kJoinedBytes + 1 : zeros;
            unpack_group(from, panel + (size_t(g) * kPairs * kPanelRows + v) * 2);
        }
}

void unpack_int8(const int8_t* weights, const uint16_t* scales, int groups, int16_t* panel, float* panel_scales) {
    for (int i = 0; i < groups * kPanelRows; i += W) store(panel_scales + i, load_bf16(scales + i));
    for (int four = 0; four < groups * kGroup / 4; four++)
        for (int v = 0; v < kPanelRows; v += W) {
            const I bytes = load_as<I>(weights + (size_t(four) * kPanelRows + v) * 4);
            int16_t* to = panel + (size_t(four) * 2 * kPanelRows + v) * 2;
            store_as(to, first_pair(bytes));
            store_as(to + 2 * kPanelRows, second_pair(bytes));
        }
}

// panel_gemm for T tokens and V * W of the 32 rows.
template <int V, int T>
inline void panel_tile(const int16_t* panel, const float* panel_scales, int groups, const int16_t* const* q,
                       const float* const* x_scales, float* acc) {
    F total[T][V];
    for (int t = 0; t < T; t++)
        for (int v = 0; v < V; v++) total[t][v] = load(acc + t * kPanelRows + v * W);
    for (int g = 0; g < groups; g++) {
        I dot[T][V] = {};
        const int16_t* w = panel + size_t(g) * kPairs * kPanelRows * 2;
        for (int pair = 0; pair < kPairs; pair++) {
            I weights[V];
#pragma GCC unroll 8
            for (int v = 0; v < V; v++) weights[v] = load_as<I>(w + (pair * kPanelRows + v * W) * 2);
#pragma GCC unroll 8
            for (int t = 0; t < T; t++) {
                const I x = set1_pair(q[t] + g * kGroup + 2 * pair);
#pragma GCC unroll 8
                for (int v = 0; v < V; v++) dot[t][v] = dot_pairs(dot[t][v], weights[v], x);
            }
        }
#pragma GCC unroll 8
        for (int t = 0; t < T; t++) {
            const F factor = set1(x_scales[t][g]);
#pragma GCC unroll 8
            for (int v = 0; v < V; v++)
                total[t][v] =
                    total[t][v] + to_float(dot[t][v]) * (load(panel_scales + g * kPanelRows + v * W) * factor);
        }
    }
    for (int t = 0; t < T; t++)
        for (int v = 0; v < V; v++) store(acc + t * kPanelRows + v * W, total[t][v]);
}

void panel_gemm(const int16_t* panel, const float* panel_scales, int groups, const int16_t* const* q,
                const float* const* x_scales, int tokens, float* acc) {
    constexpr int V = 2;
    for (int v = 0; v < kPanelRows; v += V * W)
        for_tiles<W == 16 ? 6 : 3>(tokens, [&](auto tile, int t) {
            panel_tile<V, tile.size>(panel + 2 * v, panel_scales + v, groups, q + t, x_scales + t,
                                     acc + t * kPanelRows + v);
        });
}

// --- eight-bit weights ----------------------------------------------------------------------------------------------

inline uint16_t round_up_to_bf16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return uint16_t((bits + 0xffff) >> 16);
}

// Packs 32 bfloat16 weights as q (32,); returns their scale in bfloat16.
inline uint16_t pack_group(const uint16_t* weights, int8_t* q) {
    I largest_bits = {};
    for (int i = 0; i < kGroup; i += W)
        largest_bits = max_int(largest_bits, as_int(load_bf16(weights + i)) & 0x7fffffff);
    const int32_t bits = max_lane_int(largest_bits);
    float largest;
    std::memcpy(&largest, &bits, 4);
    // Rounded up, so that no integer exceeds 127 after the scale is rounded to bfloat16.
    const uint16_t scale = round_up_to_bf16(largest / 127.0f);
    // A division, not a multiplication by the inverse: quotients of bfloat16 are often halfway between two integers,
    // and then the rounding must not depend on the level.
    const F step = set1(largest > 1e-30f ? bf16_to_float(scale) : __builtin_inff());
    const F magic = set1(12582912.0f);
    for (int i = 0; i < kGroup; i += W)
        store_as_8_bits(q + i, as_int(load_bf16(weights + i) / step + magic) - as_int(magic));
    return scale;
}

// Stores one group of 32 rows, q (32, 32), in the layout of an 8-bit panel: to (8, 32, 4), each four in the order 0 2 1
// 3.
inline void store_columns(const int8_t (*q)[kGroup], int8_t* to) {
#if defined(__AVX512BW__)
    const __m512i order = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15));
    for (int v = 0; v < kPanelRows; v += W)
        for (int half = 0; half < kGroup; half += 16) {
            // As in `unpack_group`: rows 4 apart in a register, then 4 by 4 transpositions of dwords within lanes.
            __m512i a[4];
            for (int i = 0; i < 4; i++) {
                __m512i rows = _mm512_castsi128_si512(load_as<__m128i>(q[v + i] + half));
                rows = _mm512_inserti32x4(rows, load_as<__m128i>(q[v + i + 4] + half), 1);
                rows = _mm512_inserti32x4(rows, load_as<__m128i>(q[v + i + 8] + half), 2);
                rows = _mm512_inserti32x4(rows, load_as<__m128i>(q[v + i + 12] + half), 3);
                a[i] = _mm512_shuffle_epi8(rows, order);
            }
            const __m512i t0 = _mm512_unpacklo_epi32(a[0], a[1]), t1 = _mm512_unpackhi_epi32(a[0], a[1]);
            const __m512i t2 = _mm512_unpacklo_epi32(a[2], a[3]), t3 = _mm512_unpackhi_epi32(a[2], a[3]);
            int8_t* column = to + (half / 4 * kPanelRows + v) * 4;
            store_as(column, _mm512_unpacklo_epi64(t0, t2));
            store_as(column + 4 * kPanelRows, _mm512_unpackhi_epi64(t0, t2));
            store_as(column + 8 * kPanelRows, _mm512_unpacklo_epi64(t1, t3));
            store_as(column + 12 * kPanelRows, _mm512_unpackhi_epi64(t1, t3));
        }
#else
    for (int r = 0; r < kPanelRows; r++)
        for (int i = 0; i < kGroup; i += 4) {
            uint32_t four;
            std::memcpy(&four, q[r] + i, 4);
            four = (four & 0xff0000ffu) | (four >> 8 & 0xff00u) | (four << 8 & 0xff0000u);
            std::memcpy(to + (i / 4 * kPanelRows + r) * 4, &four, 4);
        }
#endif
}

void pack_int8(const uint16_t* weights, int rows, int columns, int8_t* packed, uint16_t* scales) {
    const int groups = (columns + kGroup - 1) / kGroup;
    for (int g = 0; g < groups; g++) {
        const int n = columns - g * kGroup < kGroup ? columns - g * kGroup : kGroup;
        alignas(64) int8_t q[kPanelRows][kGroup];
        for (int r = 0; r < kPanelRows; r++) {
            const uint16_t* row = weights + size_t(r) * columns + g * kGroup;
            uint16_t padded[kGroup] = {};
            if (r >= rows || n < kGroup) {
                if (r < rows) std::memcpy(padded, row, n * sizeof *row);
                row = padded;
            }
            scales[g * kPanelRows + r] = pack_group(row, q[r]);
        }
        store_columns(q, packed + size_t(g) * kGroup * kPanelRows);
    }
}

// The plain read loop that decoding is compared with. The sum makes it impossible to leave out a load.
uint64_t read_once(const void* data, size_t bytes) {
    const char* p = static_cast<const char*>(data);
    Words sums[8] = {};
    size_t at = 0;
    for (; at + sizeof sums <= bytes; at += sizeof sums)
        for (int i = 0; i < 8; i++) sums[i] += load_as<Words>(p + at + i * sizeof(Words));
    for (int i = 1; i < 8; i++) sums[0] += sums[i];
    uint64_t total = 0;
    for (size_t lane = 0; lane < sizeof(Words) / 8; lane++) total += sums[0][lane];
    for (; at < bytes; at += 8) {
        uint64_t word = 0;
        std::memcpy(&word, p + at, bytes - at < 8 ? bytes - at : 8);
        total += word;
    }
    return total;
}

// --- the rest -------------------------------------------------------------------------------------------------------

// Comparisons with NaN are false; min and max below are written so that NaN remains.
inline float clamped_swiglu(float gate, float up, float alpha, float limit) {
    gate = limit < gate ? limit : gate;
    up = limit < up ? limit : up;
    up = -limit > up ? -limit : up;
    return gate / (1.0f + __builtin_expf(-alpha * gate)) * (up + 1.0f);
}

void swiglu(const float* x, int width, float alpha, float limit, float* out) {
    int i = 0;
    for (; i + W <= width; i += W) {
        float gates[W], ups[W];
        for (int lane = 0; lane < W; lane++) {
            gates[lane] = x[2 * (i + lane)];
            ups[lane] = x[2 * (i + lane) + 1];
        }
        const F gate = min(set1(limit), load(gates));
        const F up = max(set1(-limit), min(set1(limit), load(ups)));
        // Clamped before exp overflows, at 88.7; the quotient is then negligible, about 1e-36.
        const F e = exp(min(set1(88.0f), gate * -alpha));
        store(out + i, gate / (e + 1.0f) * (up + 1.0f));
    }
    for (; i < width; i++) out[i] = clamped_swiglu(x[2 * i], x[2 * i + 1], alpha, limit);
}

void rms_norm(const float* x, const float* scale, int columns, float eps, float* out) {
    F squares = {};
    int c = 0;
    for (; c + W <= columns; c += W) squares = squares + load(x + c) * load(x + c);
    float total = sum(squares);
    for (int i = c; i < columns; i++) total += x[i] * x[i];
    const float factor = 1.0f / __builtin_sqrtf(total / float(columns) + eps);
    for (c = 0; c + W <= columns; c += W) store(out + c, load(x + c) * factor * load(scale + c));
    for (; c < columns; c++) out[c] = x[c] * factor * scale[c];
}

void rope(const float* x, const float* cos, const float* sin, int heads, int half, float* out) {
    for (int h = 0; h < heads; h++, x += 2 * half, out += 2 * half) {
        int i = 0;
        for (; i + W <= half; i += W) {
            const F a = load(x + i), b = load(x + half + i), c = load(cos + i), s = load(sin + i);
            store(out + i, a * c - b * s);
            store(out + half + i, b * c + a * s);
        }
        for (; i < half; i++) {
            const float a = x[i], b = x[half + i];
            out[i] = a * cos[i] - b * sin[i];
            out[half + i] = b * cos[i] + a * sin[i];
        }
    }
}

#include "attention.inl"

extern const KernelTable kernels; // const objects are local to their file unless declared so
const KernelTable kernels = {
    GPTOSS_ISA_NAME, quantize,      arrange,     mxfp4_rows, joined_rows, int8_panel, bf16_rows, bf16_block,
    unpack_mxfp4,    unpack_joined, unpack_int8, panel_gemm, pack_int8,   swiglu,     rms_norm,  rope,
    attention,       join_attention, read_once,
};

} // namespace gptoss::GPTOSS_ISA
