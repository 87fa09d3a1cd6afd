// The mixture of experts of one layer, its weights MXFP4 in the checkpoint's own layout, read where they are.
#pragma once
#include "dense.h"

namespace gptoss {

// (experts, rows, groups, 16) codes and (experts, rows, groups) scales.
struct Mxfp4Matrix {
    const uint8_t* blocks;
    const uint8_t* scales;
    int rows, groups;
    Vector bias; // (experts, rows)

    const uint8_t* block(int expert, int row) const { return blocks + index(expert, row) * kBlockBytes; }
    const uint8_t* scale(int expert, int row) const { return scales + index(expert, row); }

  private:
    size_t index(int expert, int row) const { return (size_t(expert) * rows + row) * groups; }
};

class Experts {
  public:
    // gate_up has 2 * width rows, even ones gate; down has `hidden` rows. All must outlive the object.
    Experts(int experts, Mxfp4Matrix gate_up, Mxfp4Matrix down) : experts(experts), gate_up_(gate_up), down_(down) {}

    // x (tokens, hidden), router logits (tokens, experts) -> out (tokens, hidden).
    void forward(const Kernels& kernels, const float* x, const float* router_logits, int tokens, int top_k, float alpha,
                 float limit, float* out) const;

    int hidden() const { return down_.rows; }
    int width() const { return gate_up_.rows / 2; }

    const int experts;

  private:
    Mxfp4Matrix gate_up_, down_;
};

} // namespace gptoss
