#include "dense.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

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

    void compute(const KernelTable& k, int piece, const DenseInput& input, float* out) const override {
        const int first = piece * kRowsAtATime, n = std::min(kRowsAtATime, rows - first);
        const uint16_t* weights = weights_ + size_t(first) * columns;
        if (input.tokens < kGemmTokens) {
            // Two rows at a time, so that they are in the first-level cache for the second token.
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

// Offsets in a packed layer: all panels' weights, then all panels' scales; see kernels.h.
struct Int8Layout {
    Int8Layout(int rows, int columns)
        : rows(rows), columns(columns), groups((columns + kGroup - 1) / kGroup),
          panels((rows + kPanelRows - 1) / kPanelRows) {}
    size_t panel_weights() const { return size_t(groups) * kGroup * kPanelRows; }
    size_t panel_scales() const { return size_t(groups) * kPanelRows; }
    size_t bytes() const { return panels * (panel_weights() + panel_scales() * sizeof(uint16_t)); }
    int rows_of(int panel) const { return std::min(kPanelRows, rows - panel * kPanelRows); }
    template <class Byte> auto* weights(Byte* packed, int panel) const {
        using Weight = std::conditional_t<std::is_const_v<Byte>, const int8_t, int8_t>;
        return reinterpret_cast<Weight*>(packed) + panel * panel_weights();
    }
    template <class Byte> auto* scales(Byte* packed, int panel) const {
        using Scale = std::conditional_t<std::is_const_v<Byte>, const uint16_t, uint16_t>;
        return reinterpret_cast<Scale*>(packed + panels * panel_weights()) + panel * panel_scales();
    }

    const int rows, columns, groups, panels;
};

class Int8Dense final : public Dense {
  public:
    Int8Dense(const uint8_t* packed, int rows, int columns, Vector bias)
        : Dense(rows, columns, bias), layout_(rows, columns), packed_(packed) {}

    size_t bytes() const override { return layout_.bytes(); }
    int pieces() const override { return layout_.panels; }
    bool takes_integers() const override { return true; }
    Op op(int tokens) const override { return tokens < kGemmTokens ? Op::int8_gemv : Op::int8_gemm; }

    void compute(const KernelTable& k, int piece, const DenseInput& input, float* out) const override {
        const int8_t* weights = layout_.weights(packed_, piece);
        const uint16_t* scales = layout_.scales(packed_, piece);
        float added[kPanelRows];
        bias.read(size_t(piece) * kPanelRows, layout_.rows_of(piece), added);
        if (input.tokens < kGemmTokens)
            gemv(k, piece, weights, scales, *input.integers, added, out);
        else
            gemm(k, piece, weights, scales, *input.integers, added, out);
    }

  private:
    // Few tokens: the packed weights are read once for each.
    void gemv(const KernelTable& k, int panel, const int8_t* weights, const uint16_t* scales, const Activations& q,
              const float* added, float* out) const {
        for (int t = 0; t < q.tokens(); t++) {
            float sums[kPanelRows];
            k.int8_panel(weights, scales, layout_.groups, q.values(t), q.scales(t), sums);
            write(panel, sums, added, out + size_t(t) * rows);
        }
    }

    // Many tokens: weights are unpacked kPanelGroups groups at a time and multiplied with all tokens.
    void gemm(const KernelTable& k, int panel, const int8_t* weights, const uint16_t* scales, const Activations& q,
              const float* added, float* out) const {
        const int tokens = q.tokens();
        const Buffer<float> sums(size_t(tokens) * kPanelRows);
        std::fill_n(sums.get(), size_t(tokens) * kPanelRows, 0.0f);
        alignas(64) int16_t unpacked[kPanelGroups * kGroup * kPanelRows];
        alignas(64) float factors[kPanelGroups * kPanelRows];
        std::vector<const int16_t*> values(tokens);
        std::vector<const float*> x_scales(tokens);
        for (int g = 0; g < layout_.groups; g += kPanelGroups) {
            const int n = std::min(kPanelGroups, layout_.groups - g);
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

    // One token's sums (32,) plus bias to its row of the output.
    void write(int panel, const float* sums, const float* added, float* out) const {
        for (int r = 0; r < layout_.rows_of(panel); r++) out[panel * kPanelRows + r] = sums[r] + added[r];
    }

    const Int8Layout layout_;
    const uint8_t* packed_;
};

} // namespace

void forward(const Kernels& kernels, const std::vector<const Dense*>& layers, const float* x, int tokens,
             const std::vector<float*>& outs) {
    const KernelTable& k = kernels.table;
    int64_t pieces = 0;
    bool integers = false;
    for (const Dense* layer : layers) {
        kernels.count(layer->op(tokens));
        pieces += layer->pieces();
        integers |= layer->takes_integers();
    }
    const Activations q(integers ? tokens : 0, layers[0]->columns);
    parallel_for(q.tokens() < 8 ? 1 : kernels.threads, q.tokens(), 4,
                 [&](int64_t t, int) { q.quantize(k, x, int(t)); });
    const DenseInput input{x, &q, tokens};
    parallel_for(kernels.threads, pieces, 1, [&](int64_t piece, int) {
        size_t i = 0;
        for (; piece >= layers[i]->pieces(); i++) piece -= layers[i]->pieces();
        layers[i]->compute(k, int(piece), input, outs[i]);
    });
}

std::unique_ptr<Dense> make_bf16_dense(const uint16_t* weights, int rows, int columns, Vector bias) {
    return std::make_unique<Bf16Dense>(weights, rows, columns, bias);
}

size_t int8_bytes(int rows, int columns) { return Int8Layout(rows, columns).bytes(); }

void pack_int8(const Kernels& kernels, const uint16_t* weights, int rows, int columns, uint8_t* packed) {
    const KernelTable& k = kernels.table;
    const Int8Layout layout(rows, columns);
    kernels.count(Op::int8_pack);
    parallel_for(kernels.threads, layout.panels, 8, [&](int64_t i, int) {
        const int panel = int(i);
        k.pack_int8(weights + size_t(panel) * kPanelRows * columns, layout.rows_of(panel), columns,
                    layout.weights(packed, panel), layout.scales(packed, panel));
    });
}

bool is_packed_from(const Kernels& kernels, const uint16_t* weights, int rows, int columns, const uint8_t* packed) {
    const Int8Layout layout(rows, columns);
    const int last = layout.panels - 1;
    const Int8Layout panel(layout.rows_of(last), columns);
    const Buffer<uint8_t> expected(panel.bytes());
    kernels.table.pack_int8(weights + size_t(last) * kPanelRows * columns, panel.rows, columns,
                            panel.weights(expected.get(), 0), panel.scales(expected.get(), 0));
    return !std::memcmp(panel.weights(expected.get(), 0), layout.weights(packed, last), layout.panel_weights()) &&
           !std::memcmp(panel.scales(expected.get(), 0), layout.scales(packed, last),
                        layout.panel_scales() * sizeof(uint16_t));
}

std::unique_ptr<Dense> make_int8_dense(const uint8_t* packed, int rows, int columns, Vector bias) {
    return std::make_unique<Int8Dense>(packed, rows, columns, bias);
}

} // namespace gptoss
