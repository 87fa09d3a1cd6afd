#include "dense.h"

#include <algorithm>
#include <vector>

#include "dispatch.h"

namespace gptoss {
namespace {

constexpr int kRowsAtATime = 32;

class Bf16Dense final : public Dense {
  public:
    Bf16Dense(const uint16_t* weights, int rows, int columns, Vector bias)
        : Dense(rows, columns, bias), weights_(weights) {}

    size_t bytes() const override { return size_t(rows) * columns * 2; }

    void forward(const float* x, int tokens, float* out, int threads) const override {
        const Kernels& k = active_kernels();
        count(k, tokens == 1 ? Op::bf16_gemv : Op::bf16_gemm);
        const int64_t pieces = (rows + kRowsAtATime - 1) / kRowsAtATime;
        parallel_for(threads, pieces, 1, [&](int64_t piece, int) {
            const int first = int(piece) * kRowsAtATime, n = std::min(kRowsAtATime, rows - first);
            const uint16_t* weights = weights_ + size_t(first) * columns;
            if (tokens == 1)
                k.bf16_rows(weights, n, columns, x, out + first);
            else
                k.bf16_block(weights, n, columns, x, tokens, out + first, rows);
            if (bias.data)
                for (int t = 0; t < tokens; t++)
                    for (int r = first; r < first + n; r++) out[size_t(t) * rows + r] += bias[r];
        });
    }

  private:
    const uint16_t* weights_;
};

class Int8Dense final : public Dense {
  public:
    Int8Dense(const uint16_t* weights, int rows, int columns, Vector bias, int threads)
        : Dense(rows, columns, bias), groups_((columns + kGroup - 1) / kGroup),
          panels_((rows + kPanelRows - 1) / kPanelRows), weights_(size_t(panels_) * panel_weights()),
          scales_(size_t(panels_) * panel_scales()) {
        const Kernels& k = active_kernels();
        count(k, Op::int8_pack);
        parallel_for(threads, panels_, 8, [&](int64_t panel, int) {
            const int first = int(panel) * kPanelRows;
            k.pack_int8(weights + size_t(first) * columns, std::min(kPanelRows, rows - first), columns,
                        weights_.get() + panel * panel_weights(), scales_.get() + panel * panel_scales());
        });
    }

    size_t bytes() const override { return weights_.bytes() + scales_.bytes(); }

    void forward(const float* x, int tokens, float* out, int threads) const override {
        const Kernels& k = active_kernels();
        const Activations q(tokens, columns);
        parallel_for(tokens < 8 ? 1 : threads, tokens, 4, [&](int64_t t, int) { q.quantize(k, x, int(t)); });
        if (tokens < kGemmTokens)
            gemv(k, q, out, threads);
        else
            gemm(k, q, out, threads);
    }

  private:
    size_t panel_weights() const { return size_t(groups_) * kGroup * kPanelRows; }
    size_t panel_scales() const { return size_t(groups_) * kPanelRows; }

    void gemv(const Kernels& k, const Activations& q, float* out, int threads) const {
        count(k, Op::int8_gemv);
        parallel_for(threads, panels_, 2, [&](int64_t panel, int) {
            for (int t = 0; t < q.tokens(); t++) {
                float sums[kPanelRows];
                k.int8_panel(weights_.get() + panel * panel_weights(), scales_.get() + panel * panel_scales(), groups_,
                             q.values(t), q.scales(t), sums);
                write(panel, sums, out + size_t(t) * rows);
            }
        });
    }

    void gemm(const Kernels& k, const Activations& q, float* out, int threads) const {
        count(k, Op::int8_gemm);
        const int tokens = q.tokens();
        const Buffer<float> sums(size_t(threads) * tokens * kPanelRows);
        parallel_for(threads, panels_, 1, [&](int64_t panel, int thread) {
            float* acc = sums.get() + size_t(thread) * tokens * kPanelRows;
            std::fill_n(acc, size_t(tokens) * kPanelRows, 0.0f);
            alignas(64) int16_t unpacked[kPanelGroups * kGroup * kPanelRows];
            alignas(64) float factors[kPanelGroups * kPanelRows];
            std::vector<const int16_t*> values(tokens);
            std::vector<const float*> scales(tokens);
            for (int g = 0; g < groups_; g += kPanelGroups) {
                const int n = std::min(kPanelGroups, groups_ - g);
                k.unpack_int8(weights_.get() + panel * panel_weights() + size_t(g) * kGroup * kPanelRows,
                              scales_.get() + panel * panel_scales() + size_t(g) * kPanelRows, n, unpacked, factors);
                for (int t = 0; t < tokens; t++) {
                    values[t] = q.values(t) + g * kGroup;
                    scales[t] = q.scales(t) + g;
                }
                k.panel_gemm(unpacked, factors, n, values.data(), scales.data(), tokens, acc);
            }
            for (int t = 0; t < tokens; t++) write(panel, acc + t * kPanelRows, out + size_t(t) * rows);
        });
    }

    void write(int64_t panel, const float* sums, float* out) const {
        const int first = int(panel) * kPanelRows, n = std::min(kPanelRows, rows - first);
        for (int r = 0; r < n; r++) out[first + r] = sums[r] + bias[first + r];
    }

    int groups_, panels_;
    Buffer<int8_t> weights_;
    Buffer<uint16_t> scales_;
};

} // namespace

std::unique_ptr<Dense> make_bf16_dense(const uint16_t* weights, int rows, int columns, Vector bias) {
    return std::make_unique<Bf16Dense>(weights, rows, columns, bias);
}

std::unique_ptr<Dense> make_int8_dense(const uint16_t* weights, int rows, int columns, Vector bias, int threads) {
    return std::make_unique<Int8Dense>(weights, rows, columns, bias, threads);
}

} // namespace gptoss
