// Which level of kernels runs, and the counts that prove it.
#pragma once
#include <map>
#include <string>
#include <vector>

#include "kernels.h"

namespace gptoss {

// The names of the levels that this machine can run, best first; "portable" is always the last.
std::vector<std::string> available_isas();

// The level in use: the best that the machine runs, until `use_isa` chooses another.
const Kernels& active_kernels();

// Throws std::invalid_argument where the machine cannot run it.
void use_isa(const std::string& name);

enum class Op {
    bf16_gemv, bf16_gemm, int8_gemv, int8_gemm, int8_pack, mxfp4_gemv, mxfp4_gemm, attention, rms_norm, rope, count,
};

// One more call of `op` at the level of `kernels`.
void count(const Kernels& kernels, Op op);
// Calls since the last reset, by "level.operation"; what was not called is left out.
std::map<std::string, long> counts();
void reset_counts();

} // namespace gptoss
