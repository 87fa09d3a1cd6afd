#include "dense.h"

#include <algorithm>

#include "parallel.h"

namespace gptoss {
namespace {

class Bf16Dense final : public Dense {
  public:
    Bf16Dense(const uint16_t* weights, int rows, int columns, Vector bias)
        : Dense(rows, columns, bias), weights_(weights) {}

    size_t bytes() const override { return size_t(rows) * columns * 2; }
    int pieces() const override { return (rows + kRowsAtATime - 1) / kRowsAtATime; }
    bool takes_integers() const override { return false; }
    Op op(int tokens) const override { return tokens < kGemmTokens ? Op::bf16_gemv : Op::bf16_gemm; }

    void compute(int piece, const DenseInput& input, float* out) const override {
        const Kernels& k = active_kernels();
        const int first = piece * kRowsAtATime, n = std::min(kRowsAtATime, rows - first);
        const uint16_t* weights = weights_ + size_t(first) * columns;
        if (input.tokens < kGemmTokens) {
            // Few rows at a time, so that the second token finds them in the cache.
            const int few = input.tokens == 1 ? n : 2;
            for (int r = 0; r < n; r += few)
                for (int t = 0; t < input.tokens; t++)
                    k.bf16_rows(weights + size_t(r) * columns, std::min(few, n - r), columns,
                                input.x + size_t(t) * columns, out + size_t(t) * rows + first + r);
        } else
            k.bf16_block(weights, n, columns, input.x, input.tokens, out + first, rows);
        if (!bias.data) return;
        float added[kRowsAtATime];
        bias.read(first, n, added);
        for (int t = 0; t < input.tokens; t++)
            for (int r = 0; r < n; r++) out[size_t(t) * rows + first + r] += added[r];
    }

  private:
    static constexpr int kRowsAtATime = 32;
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
    int pieces() const override { return panels_; }
    bool takes_integers() const override { return true; }
    Op op(int tokens) const override { return tokens < kGemmTokens ? Op::int8_gemv : Op::int8_gemm; }

    void compute(int piece, const DenseInput& input, float* out) const override {
        const int8_t* weights = weights_.get() + piece * panel_weights();
        const uint16_t* scales = scales_.get() + piece * panel_scales();
        float added[kPanelRows];
        bias.read(size_t(piece) * kPanelRows, rows_of(piece), added);
        if (input.tokens < kGemmTokens)
            gemv(piece, weights, scales, *input.integers, added, out);
        else
            gemm(piece, weights, scales, *input.integers, added, out);
    }

  private:
    size_t panel_weights() const { return size_t(groups_) * kGroup * kPanelRows; }
    size_t panel_scales() const { return size_t(groups_) * kPanelRows; }
    int rows_of(int panel) const { return std::min(kPanelRows, rows - panel * kPanelRows); }

    void gemv(int panel, const int8_t* weights, const uint16_t* scales, const Activations& q, const float* added,
              float* out) const {
        for (int t = 0; t < q.tokens(); t++) {
            float sums[kPanelRows];
            active_kernels().int8_panel(weights, scales, groups_, q.values(t), q.scales(t), sums);
            write(panel, sums, added, out + size_t(t) * rows);
        }
    }

    void gemm(int panel, const int8_t* weights, const uint16_t* scales, const Activations& q, const float* added,
              float* out) const {
        const Kernels& k = active_kernels();
        const int tokens = q.tokens();
        const Buffer<float> sums(size_t(tokens) * kPanelRows);
        std::fill_n(sums.get(), size_t(tokens) * kPanelRows, 0.0f);
        alignas(64) int16_t unpacked[kPanelGroups * kGroup * kPanelRows];
        alignas(64) float factors[kPanelGroups * kPanelRows];
        std::vector<const int16_t*> values(tokens);
        std::vector<const float*> x_scales(tokens);
        for (int g = 0; g < groups_; g += kPanelGroups) {
            const int n = std::min(kPanelGroups, groups_ - g);
            k.unpack_int8(weights + size_t(g) * kGroup * kPanelRows, scales + size_t(g) * kPanelRows, n, unpacked,
                          factors);
            for (int t = 0; t < tokens; t++) {
                values[t] = q.values(t) + g * kGroup;
                x_scales[t] = q.scales(t) + g;
            }
            k.panel_gemm(unpacked, factors, n, values.data(), x_scales.data(), tokens, sums.get());
        }
        for (int t = 0; t < tokens; t++) write(panel, sums.get() + t * kPanelRows, added, out + size_t(t) * rows);
    }

    void write(int panel, const float* sums, const float* added, float* out) const {
        for (int r = 0; r < rows_of(panel); r++) out[panel * kPanelRows + r] = sums[r] + added[r];
    }

    int groups_, panels_;
    Buffer<int8_t> weights_;
    Buffer<uint16_t> scales_;
};

} // namespace

void forward(const std::vector<const Dense*>& layers, const float* x, int tokens, const std::vector<float*>& outs,
             int threads) {
    const Kernels& k = active_kernels();
    int64_t pieces = 0;
    bool integers = false;
    for (const Dense* layer : layers) {
        count(k, layer->op(tokens));
        pieces += layer->pieces();
        integers |= layer->takes_integers();
    }
    const Activations q(integers ? tokens : 0, layers[0]->columns);
    parallel_for(q.tokens() < 8 ? 1 : threads, q.tokens(), 4, [&](int64_t t, int) { q.quantize(k, x, int(t)); });
    const DenseInput input{x, &q, tokens};
    parallel_for(threads, pieces, 1, [&](int64_t piece, int) {
        size_t i = 0;
        for (; piece >= layers[i]->pieces(); i++) piece -= layers[i]->pieces();
        layers[i]->compute(int(piece), input, outs[i]);
    });
}

std::unique_ptr<Dense> make_bf16_dense(const uint16_t* weights, int rows, int columns, Vector bias) {
    return std::make_unique<Bf16Dense>(weights, rows, columns, bias);
}

std::unique_ptr<Dense> make_int8_dense(const uint16_t* weights, int rows, int columns, Vector bias, int threads) {
    return std::make_unique<Int8Dense>(weights, rows, columns, bias, threads);
}

} // namespace gptoss
