// Attention over one head of keys and values, in blocks of kKeyBlock keys with an online softmax (Milakov and
// Gimelshein 2018). Included by kernels.inl. head_dim is a multiple of 16.

// Prefetches the same row of the next block: rows of one head are too far apart for the hardware prefetcher.
inline void prefetch_row(const void* row, ptrdiff_t row_bytes, size_t bytes) {
    const char* next = static_cast<const char*>(row) + kKeyBlock * row_bytes;
    for (size_t at = 0; at < bytes; at += 64) __builtin_prefetch(next + at, 0, 0);
}

// Transposes keys first .. first + count - 1, so that the scores of neighbouring keys are in neighbouring lanes.
// Float32 keys: out (head_dim, kKeyBlock). Bfloat16 keys are moved as pairs of dimensions, unconverted: out (head_dim /
// 2, kKeyBlock) dwords, the even dimension in the low half. Columns from `count` on become zero.
inline void transpose_keys(const Strided& k, int64_t first, int count, int head_dim, float* out) {
    const int units = k.bf16 ? head_dim / 2 : head_dim;
    const size_t unit_bytes = 4, row_bytes = size_t(k.stride) * (k.bf16 ? 2 : 4);
    const char* row = static_cast<const char*>(k.data) + size_t(first) * row_bytes;
    for (int i = 0; i < count; i++) prefetch_row(row + i * row_bytes, row_bytes, units * unit_bytes);
#if defined(__AVX512F__)
    int i = 0;
    for (; i + 16 <= count; i += 16, row += 16 * row_bytes)
        for (int u = 0; u < units; u += 16) {
            __m512i a[16], b[16];
            for (int j = 0; j < 16; j++) a[j] = _mm512_loadu_si512(row + j * row_bytes + u * unit_bytes);
            for (int j = 0; j < 16; j += 2) {
                b[j] = _mm512_unpacklo_epi32(a[j], a[j + 1]);
                b[j + 1] = _mm512_unpackhi_epi32(a[j], a[j + 1]);
            }
            for (int j = 0; j < 16; j += 4) {
                a[j] = _mm512_unpacklo_epi64(b[j], b[j + 2]);
                a[j + 1] = _mm512_unpackhi_epi64(b[j], b[j + 2]);
                a[j + 2] = _mm512_unpacklo_epi64(b[j + 1], b[j + 3]);
                a[j + 3] = _mm512_unpackhi_epi64(b[j + 1], b[j + 3]);
            }
            // a[4m + c]: dword c of each 128-bit lane, rows 4m .. 4m + 3.
            for (int c = 0; c < 4; c++) {
                const __m512i t0 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88),
                              t1 = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd),
                              t2 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88),
                              t3 = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
                float* to = out + (u + c) * kKeyBlock + i;
                _mm512_storeu_si512(to, _mm512_shuffle_i32x4(t0, t2, 0x88));
                _mm512_storeu_si512(to + 8 * kKeyBlock, _mm512_shuffle_i32x4(t0, t2, 0xdd));
                _mm512_storeu_si512(to + 4 * kKeyBlock, _mm512_shuffle_i32x4(t1, t3, 0x88));
                _mm512_storeu_si512(to + 12 * kKeyBlock, _mm512_shuffle_i32x4(t1, t3, 0xdd));
            }
        }
#else
    int i = 0;
#endif
    for (; i < count; i++, row += row_bytes)
        for (int u = 0; u < units; u++) std::memcpy(out + u * kKeyBlock + i, row + u * unit_bytes, unit_bytes);
    for (; i < kKeyBlock; i++)
        for (int u = 0; u < units; u++) out[u * kKeyBlock + i] = 0.0f;
}

// Prefetches the next keys and values a few cache lines at a time, between computations. In one go, there would be more
// requests than a core can have outstanding, and it would wait.
struct Ahead {
    const char *keys, *values;
    size_t at, end;
    void ask(int lines) {
        for (; lines > 0 && at < end; lines--, at += 64) {
            __builtin_prefetch(keys + at, 0, 2);
            __builtin_prefetch(values + at, 0, 2);
        }
    }
};

// Converts values first .. first + count - 1 to float32: out (kKeyBlock, head_dim), zero from `count` on.
inline void widen_values(const Strided& v, int64_t first, int count, int head_dim, float* out, Ahead& ahead) {
    for (int i = 0; i < count; i++, out += head_dim) {
        ahead.ask(2);
        if (v.bf16) {
            const uint16_t* row = static_cast<const uint16_t*>(v.data) + (first + i) * v.stride;
            prefetch_row(row, v.stride * 2, head_dim * 2);
            for (int d = 0; d < head_dim; d += W) store(out + d, load_bf16(row + d));
        } else {
            std::memcpy(out, static_cast<const float*>(v.data) + (first + i) * v.stride, head_dim * sizeof *out);
        }
    }
    std::memset(out, 0, size_t(kKeyBlock - count) * head_dim * sizeof *out);
}

// scores[i * kKeyBlock + key] = factor * (query i times key), for Q queries q[i] (head_dim,) and V * W keys of a
// transposed block.
template <int Q, int V, bool bf16>
inline void score_tile(const float* const* q, const float* keys, int head_dim, float factor, float* scores) {
    F acc[Q][V] = {};
    if constexpr (bf16) {
        for (int d = 0; d < head_dim; d += 2, keys += kKeyBlock) {
            F even[V], odd[V];
            for (int v = 0; v < V; v++) {
                const U both = load_as<U>(keys + v * W);
                even[v] = (F)(both << 16);
                odd[v] = (F)(both & 0xffff0000u);
            }
            for (int i = 0; i < Q; i++)
                for (int v = 0; v < V; v++) acc[i][v] = acc[i][v] + even[v] * q[i][d] + odd[v] * q[i][d + 1];
        }
    } else {
        for (int d = 0; d < head_dim; d++, keys += kKeyBlock)
            for (int i = 0; i < Q; i++)
                for (int v = 0; v < V; v++) acc[i][v] = acc[i][v] + load(keys + v * W) * q[i][d];
    }
    for (int i = 0; i < Q; i++)
        for (int v = 0; v < V; v++) store(scores + i * kKeyBlock + v * W, acc[i][v] * factor);
}

// out[i][d] += sum over keys of weights[i][key] * values[key][d], for Q queries and V * W dimensions: weights (Q,
// kKeyBlock), values (count, head_dim), out (Q, head_dim).
template <int Q, int V>
inline void value_tile(const float* weights, const float* values, int count, int head_dim, float* out) {
    F acc[Q][V];
    for (int i = 0; i < Q; i++)
        for (int v = 0; v < V; v++) acc[i][v] = load(out + i * head_dim + v * W);
    for (int key = 0; key < count; key++, values += head_dim)
        for (int v = 0; v < V; v++) {
            const F x = load(values + v * W);
            for (int i = 0; i < Q; i++) acc[i][v] = acc[i][v] + x * weights[i * kKeyBlock + key];
        }
    for (int i = 0; i < Q; i++)
        for (int v = 0; v < V; v++) store(out + i * head_dim + v * W, acc[i][v]);
}

template <int Q> inline void values_of(const float* weights, const float* values, int count, int head_dim, float* out) {
    constexpr int V = W == 16 ? 4 : 2;
    int d = 0;
    for (; d + V * W <= head_dim; d += V * W) value_tile<Q, V>(weights, values + d, count, head_dim, out + d);
    for (; d < head_dim; d += W) value_tile<Q, 1>(weights, values + d, count, head_dim, out + d);
}

template <int Q>
inline void scores_of(const float* const* q, bool bf16, const float* keys, int head_dim, float factor, float* scores) {
    constexpr int V = W == 16 ? 4 : 2;
    for (int v = 0; v < kKeyBlock; v += V * W)
        if (bf16)
            score_tile<Q, V, true>(q, keys + v, head_dim, factor, scores + v);
        else
            score_tile<Q, V, false>(q, keys + v, head_dim, factor, scores + v);
}

// First maximum of a part: below any score, but finite, because infinity minus infinity is NaN.
constexpr float kLowest = -1e30f;

void attention(const AttentionTask& task) {
    const int queries = task.tokens * task.group, head_dim = task.head_dim;
    float* keys = task.scratch;                    // a transposed block
    float* values = keys + kKeyBlock * head_dim;   // (kKeyBlock, head_dim)
    float* scores = values + kKeyBlock * head_dim; // (queries, kKeyBlock), then their exponentials
    // The state of the online softmax, in the layout of AttentionTask::part.
    float* out = scores + queries * kKeyBlock; // (queries, head_dim)
    float* largest = out + queries * head_dim; // (queries,)
    float* total = largest + queries;          // (queries,)
    std::memset(out, 0, size_t(queries) * head_dim * sizeof *out);
    for (int i = 0; i < queries; i++) {
        // The sink is the logit of a key without a value, so the online softmax starts from it. A part starts from
        // nothing; `join_attention` adds the sink.
        largest[i] = task.part ? kLowest : task.sinks[i % task.group];
        total[i] = task.part ? 0.0f : 1.0f;
    }
    auto query = [&](int i) { return task.q + (i / task.group) * task.q_stride + (i % task.group) * head_dim; };
    const float factor = 1.0f / __builtin_sqrtf(float(head_dim));
    Ahead ahead{static_cast<const char*>(task.next_keys), static_cast<const char*>(task.next_values), 0,
                task.next_bytes};
    for (int64_t first = task.begin; first < task.end; first += kKeyBlock) {
        const int count = int(task.end - first < kKeyBlock ? task.end - first : kKeyBlock);
        transpose_keys(task.k, first, count, head_dim, keys);
        widen_values(task.v, first, count, head_dim, values, ahead);
        int i = 0;
        for (; i + 4 <= queries; i += 4) {
            ahead.ask(16);
            const float* q[4] = {query(i), query(i + 1), query(i + 2), query(i + 3)};
            scores_of<4>(q, task.k.bf16, keys, head_dim, factor, scores + i * kKeyBlock);
        }
        for (; i < queries; i++) {
            const float* q[1] = {query(i)};
            scores_of<1>(q, task.k.bf16, keys, head_dim, factor, scores + i * kKeyBlock);
        }
        for (i = 0; i < queries; i++) {
            ahead.ask(8);
            float* row = scores + i * kKeyBlock;
            const int64_t position = task.first_position + i / task.group;
            const int64_t visible_end = position + 1 - first; // of this block, exclusive
            const int64_t visible_begin = task.window ? position - task.window + 1 - first : 0;
            for (int64_t key = visible_end < 0 ? 0 : visible_end; key < kKeyBlock; key++) row[key] = -__builtin_inff();
            for (int64_t key = 0; key < visible_begin && key < kKeyBlock; key++) row[key] = -__builtin_inff();
            F m = set1(largest[i]);
            for (int key = 0; key < kKeyBlock; key += W) m = max(m, load(row + key));
            const float top = max_lane(m);
            F s = {};
            for (int key = 0; key < kKeyBlock; key += W) {
                const F e = exp(load(row + key) - top);
                store(row + key, e);
                s = s + e;
            }
            const float kept = __builtin_expf(largest[i] - top);
            total[i] = total[i] * kept + sum(s);
            largest[i] = top;
            if (kept != 1.0f)
                for (int d = 0; d < head_dim; d += W) {
                    float* o = out + i * head_dim + d;
                    store(o, load(o) * kept);
                }
        }
        for (i = 0; i + 4 <= queries; i += 4, ahead.ask(16))
            values_of<4>(scores + i * kKeyBlock, values, count, head_dim, out + i * head_dim);
        for (; i < queries; i++)
            values_of<1>(scores + i * kKeyBlock, values, count, head_dim, out + i * head_dim);
    }
    if (task.part) {
        std::memcpy(task.part, out, size_t(queries) * (head_dim + 2) * sizeof *out);
        return;
    }
    for (int i = 0; i < queries; i++) {
        float* to = task.out + (i / task.group) * task.q_stride + (i % task.group) * head_dim;
        const float inverse = 1.0f / total[i];
        for (int d = 0; d < head_dim; d += W) store(to + d, load(out + i * head_dim + d) * inverse);
    }
}

void join_attention(const float* parts, int count, size_t stride, int queries, int group, int head_dim,
                    const float* sinks, int token, float* out) {
    const float* largest = parts + queries * head_dim;
    const float* total = largest + queries;
    for (int i = token * group; i < (token + 1) * group; i++, out += head_dim) {
        const float sink = sinks[i % group];
        float top = sink;
        for (int p = 0; p < count; p++) top = largest[p * stride + i] > top ? largest[p * stride + i] : top;
        float sum = __builtin_expf(sink - top);
        for (int d = 0; d < head_dim; d += W) store(out + d, F{});
        for (int p = 0; p < count; p++) {
            const float kept = __builtin_expf(largest[p * stride + i] - top);
            sum += total[p * stride + i] * kept;
            for (int d = 0; d < head_dim; d += W)
                store(out + d, load(out + d) + load(parts + p * stride + i * head_dim + d) * kept);
        }
        for (int d = 0; d < head_dim; d += W) store(out + d, load(out + d) * (1.0f / sum));
    }
}
