#include "dispatch.h"

#include <stdexcept>

namespace gptoss {

#if defined(GPTOSS_X86_LEVELS)
namespace avx512 { extern const KernelTable kernels; }
namespace avx2 { extern const KernelTable kernels; }
#endif
namespace portable { extern const KernelTable kernels; }

namespace {

struct Level {
    const KernelTable& table;
    bool (*runs_here)();
};

// Best first.
const Level levels[] = {
#if defined(GPTOSS_X86_LEVELS)
    {avx512::kernels,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
     }},
    {avx2::kernels, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {portable::kernels, [] { return true; }},
};

const char* const op_names[kOps] = {
    "bf16_gemv",  "bf16_gemm",  "int8_gemv", "int8_gemm", "int8_pack",
    "mxfp4_gemv", "mxfp4_gemm", "attention", "rms_norm",  "rope",
};

const KernelTable& table_of(const std::string& isa) {
    for (const Level& level : levels)
        if (isa == level.table.name && level.runs_here()) return level.table;
    throw std::invalid_argument("this machine does not run the instruction set " + isa);
}

} // namespace

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Level& level : levels)
        if (level.runs_here()) names.emplace_back(level.table.name);
    return names;
}

Kernels::Kernels(const std::string& isa, int threads) : table(table_of(isa)), threads(threads) {
    if (threads < 1) throw std::invalid_argument("at least one thread is needed");
}

std::map<std::string, int64_t> Kernels::counts() const {
    std::map<std::string, int64_t> result;
    for (size_t op = 0; op < kOps; op++)
        if (const int64_t n = calls_[op].load(std::memory_order_relaxed))
            result[std::string(table.name) + "." + op_names[op]] = n;
    return result;
}

} // namespace gptoss
