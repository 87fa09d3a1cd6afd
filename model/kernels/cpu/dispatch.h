// The choice of an instruction-set level, and what one instance of the CPU backend computes with.
#pragma once
#include <array>
#include <atomic>
#include <map>
#include <string>
#include <vector>

#include "kernels.h"

namespace gptoss {

// Names of the levels that this machine can run, best first; "portable" is always the last.
std::vector<std::string> available_isas();

// The operations that are counted. A call may use a kernel many times; it counts once (per expert for mxfp4_*).
enum class Op {
    bf16_gemv, bf16_gemm, int8_gemv, int8_gemm, int8_pack, mxfp4_gemv, mxfp4_gemm, attention, rms_norm, rope,
};
constexpr size_t kOps = static_cast<size_t>(Op::rope) + 1;

// The kernels of one level, how many threads they run on, and how often each operation was called. Immutable but for
// the counters, which are atomic, so any number of threads may compute with the same object; two objects share nothing.
class Kernels {
  public:
    // Throws std::invalid_argument if this machine does not run the level, or if there is not at least one thread.
    Kernels(const std::string& isa, int threads);

    void count(Op op) const { calls_[static_cast<size_t>(op)].fetch_add(1, std::memory_order_relaxed); }
    // Calls so far by "level.operation"; operations without calls are left out.
    std::map<std::string, int64_t> counts() const;

    const KernelTable& table;
    const int threads;

  private:
    mutable std::array<std::atomic<int64_t>, kOps> calls_{};
};

} // namespace gptoss
