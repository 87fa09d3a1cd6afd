// A dense layer, y = x W^T + b, with weights in bfloat16 or packed in eight bits.
#pragma once
#include <memory>
#include <vector>

#include "dispatch.h"
#include "kernels.h"
#include "memory.h"

namespace gptoss {

// A vector in the checkpoint's type, bfloat16 or float32; without data all elements are 0. Does not own its memory.
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
    // Converts `count` elements from `first` on.
    void read(size_t first, int count, float* to) const {
        for (int i = 0; i < count; i++) to[i] = (*this)[first + i];
    }
};

// The activations of several tokens as 16-bit integers; see KernelTable::quantize.
class Activations {
  public:
    Activations(int tokens, int columns)
        : stride_(size_t(padded_groups(columns)) * kGroup), columns_(columns), tokens_(tokens),
          values_(tokens * stride_), scales_(tokens * stride_ / kGroup) {}
    // Fills in one token of x (tokens, columns).
    void quantize(const KernelTable& k, const float* x, int token) const {
        k.quantize(x + size_t(token) * columns_, columns_, values_.get() + token * stride_, scales(token));
    }
    int16_t* values(int token) const { return values_.get() + token * stride_; }
    float* scales(int token) const { return scales_.get() + token * (stride_ / kGroup); }
    size_t stride() const { return stride_; } // padded columns
    int tokens() const { return tokens_; }

  private:
    size_t stride_;
    int columns_, tokens_;
    Buffer<int16_t> values_;
    Buffer<float> scales_;
};

// The input of a product.
struct DenseInput {
    const float* x;              // (tokens, columns)
    const Activations* integers; // the same as integers; without tokens if no layer of the call takes them
    int tokens;
};

// The weights of a layer. They do not belong to it and must outlive it. Independent of level and threads.
class Dense {
  public:
    virtual ~Dense() = default;
    // Bytes of weights that one token reads.
    virtual size_t bytes() const = 0;
    // A product is divided into pieces, ranges of rows, that can be computed in any order and on any thread.
    virtual int pieces() const = 0;
    // Writes the piece's columns of out (tokens, rows), bias included.
    virtual void compute(const KernelTable& k, int piece, const DenseInput& input, float* out) const = 0;
    // Whether `compute` reads the input's integers instead of `x`.
    virtual bool takes_integers() const = 0;
    // What a call with so many tokens is counted as.
    virtual Op op(int tokens) const = 0;

    const int rows, columns;
    const Vector bias;

  protected:
    Dense(int rows, int columns, Vector bias) : rows(rows), columns(columns), bias(bias) {}
};

// x (tokens, columns) -> outs[i] (tokens, rows of layer i), for layers with the same columns. All in one parallel
// region, so that threads are woken and synchronised once.
void forward(const Kernels& kernels, const std::vector<const Dense*>& layers, const float* x, int tokens,
             const std::vector<float*>& outs);

// weights (rows, columns) bfloat16.
std::unique_ptr<Dense> make_bf16_dense(const uint16_t* weights, int rows, int columns, Vector bias);
// packed: int8_bytes(rows, columns) bytes, aligned to 64, as `pack_int8` fills them.
std::unique_ptr<Dense> make_int8_dense(const uint8_t* packed, int rows, int columns, Vector bias);
// Bytes of a packed layer: the weights of all panels of 32 rows, then the scales of all panels; see kernels.h.
size_t int8_bytes(int rows, int columns);
// Packs weights (rows, columns) bfloat16.
void pack_int8(const Kernels& kernels, const uint16_t* weights, int rows, int columns, uint8_t* packed);
// Whether the last panel is what `pack_int8` makes of these weights: a cheap check of a packed layer from a file.
bool is_packed_from(const Kernels& kernels, const uint16_t* weights, int rows, int columns, const uint8_t* packed);

// Groups of a panel that are unpacked at a time: 16 KB, which fit into the first-level cache.
constexpr int kPanelGroups = 8;
// Fewer tokens than this are computed one after the other for the same weights, bit for bit as each would be alone.
// Results of more tokens may differ from those in the last bits.
constexpr int kGemmTokens = 5;

} // namespace gptoss
