// The mixture of experts of one layer, with MXFP4 weights in the layout of safetensors or GGUF files, read in place.
#pragma once
#include "dense.h"

namespace gptoss {

// A matrix (rows, groups * 32) of each expert; see kernels.h for the layouts. Does not own its memory.
struct Mxfp4Matrix {
    int rows, groups;
    Vector bias; // (experts, rows)
    const uint8_t* blocks = nullptr; // (experts, rows, groups, 16), and
    const uint8_t* scales = nullptr; // (experts, rows, groups); or
    // joined (experts, rows / parts, groups, 17): one, or two whose rows alternate.
    const uint8_t* joined[2] = {};
    int parts = 0;
    // Whether byte j of joined codes has columns j and j + 16.
    bool halves = false;

    const uint8_t* block(int expert, int row) const { return blocks + index(expert, row) * kBlockBytes; }
    const uint8_t* scale(int expert, int row) const { return scales + index(expert, row); }
    // Row `row` of a joined part.
    const uint8_t* joined_row(int part, int expert, int row) const {
        return joined[part] + (size_t(expert) * (rows / parts) + row) * groups * kJoinedBytes;
    }

  private:
    size_t index(int expert, int row) const { return (size_t(expert) * rows + row) * groups; }
};

// What adapters add to a matrix (rows, columns) of each expert: out += up (down x). Does not own its memory.
struct LowRank {
    const float* down = nullptr; // (experts, rank, columns)
    const float* up = nullptr;   // (experts, rows, rank)
    int rank = 0;
};

class Experts {
  public:
    // gate_up has 2 * width rows of `hidden` columns, row 2i the gate and 2i + 1 the up of unit i; down has `hidden`
    // rows of `width` columns. The arrays must outlive the object.
    Experts(int experts, Mxfp4Matrix gate_up, Mxfp4Matrix down) : experts(experts), gate_up_(gate_up), down_(down) {}

    // x (tokens, hidden), router_logits (tokens, experts) -> out (tokens, hidden): the sum of the outputs of the
    // `top_k` experts with the largest logits, weighted by the softmax of these logits.
    void forward(const Kernels& kernels, const float* x, const float* router_logits, int tokens, int top_k, float alpha,
                 float limit, float* out) const;

    // The arrays must outlive the object.
    void adapt_gate_up(LowRank low_rank) { gate_up_low_rank_ = low_rank; }
    void adapt_down(LowRank low_rank) { down_low_rank_ = low_rank; }

    int hidden() const { return down_.rows; }
    int width() const { return gate_up_.rows / 2; }

    const int experts;

  private:
    Mxfp4Matrix gate_up_, down_;
    LowRank gate_up_low_rank_, down_low_rank_;
};

} // namespace gptoss
