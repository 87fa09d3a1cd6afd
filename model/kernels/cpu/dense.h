// A dense layer, y = x W^T + b, its weights exactly as they are (bfloat16) or in eight bits.
#pragma once
#include <memory>
#include <vector>

#include "dispatch.h"
#include "kernels.h"
#include "memory.h"

namespace gptoss {

// A vector in a checkpoint's own type.
struct Vector {
    const void* data = nullptr;
    bool bf16 = false;
    float operator[](size_t i) const {
        if (!data) return 0.0f;
        if (!bf16) return static_cast<const float*>(data)[i];
        const uint32_t bits = uint32_t(static_cast<const uint16_t*>(data)[i]) << 16;
        float x;
        __builtin_memcpy(&x, &bits, 4);
        return x;
    }
    // `count` values from `first` on, as floats.
    void read(size_t first, int count, float* to) const {
        for (int i = 0; i < count; i++) to[i] = (*this)[first + i];
    }
};

// Several tokens' activations as 16-bit integers; see KernelTable::quantize.
class Activations {
  public:
    Activations(int tokens, int columns)
        : stride_(size_t(padded_groups(columns)) * kGroup), columns_(columns), tokens_(tokens),
          values_(tokens * stride_), scales_(tokens * stride_ / kGroup) {}
    void quantize(const KernelTable& k, const float* x, int token) const {
        k.quantize(x + size_t(token) * columns_, columns_, values_.get() + token * stride_, scales(token));
    }
    int16_t* values(int token) const { return values_.get() + token * stride_; }
    float* scales(int token) const { return scales_.get() + token * (stride_ / kGroup); }
    size_t stride() const { return stride_; }
    int tokens() const { return tokens_; }

  private:
    size_t stride_;
    int columns_, tokens_;
    Buffer<int16_t> values_;
    Buffer<float> scales_;
};

// What a product multiplies with: float32 (tokens, columns), and the same as integers where a layer asks for them.
struct DenseInput {
    const float* x;
    const Activations* integers;
    int tokens;
};

class Dense {
  public:
    virtual ~Dense() = default;
    // Bytes of weights that one token reads.
    virtual size_t bytes() const = 0;
    // The product falls into pieces, each some rows of it, that can be computed in any order.
    virtual int pieces() const = 0;
    virtual void compute(const KernelTable& k, int piece, const DenseInput& input, float* out) const = 0;
    virtual bool takes_integers() const = 0;
    virtual Op op(int tokens) const = 0;

    const int rows, columns;
    const Vector bias;

  protected:
    Dense(int rows, int columns, Vector bias) : rows(rows), columns(columns), bias(bias) {}
};

// x (tokens, columns) -> outs[i] (tokens, rows of layer i), all contiguous; the layers have the same columns. Together,
// because the threads come together once for all of them.
void forward(const Kernels& kernels, const std::vector<const Dense*>& layers, const float* x, int tokens,
             const std::vector<float*>& outs);

// The weights stay where they are and must outlive the layer.
std::unique_ptr<Dense> make_bf16_dense(const uint16_t* weights, int rows, int columns, Vector bias);
// In eight bits, with one scale for 32 weights of a row. The packed layer stays where it is and must outlive this.
std::unique_ptr<Dense> make_int8_dense(const uint8_t* packed, int rows, int columns, Vector bias);
// Bytes of a packed layer; it is aligned to a cache line.
size_t int8_bytes(int rows, int columns);
void pack_int8(const Kernels& kernels, const uint16_t* weights, int rows, int columns, uint8_t* packed);
// Whether the last rows are packed from these weights, as this program packs them: for what comes from a file.
bool is_packed_from(const Kernels& kernels, const uint16_t* weights, int rows, int columns, const uint8_t* packed);

// Groups of a panel that are unpacked at a time: with 32 rows 16 KB, which the first-level cache holds.
constexpr int kPanelGroups = 8;
// Fewer tokens than this go through the weights one after the other, each as if it were alone: to the bit.
constexpr int kGemmTokens = 5;

} // namespace gptoss
