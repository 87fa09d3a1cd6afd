#include "dispatch.h"

#include <array>
#include <atomic>
#include <stdexcept>

namespace gptoss {

#if defined(GPTOSS_X86_LEVELS)
namespace avx512 { extern const Kernels kernels; }
namespace avx2 { extern const Kernels kernels; }
#endif
namespace portable { extern const Kernels kernels; }

namespace {

struct Level {
    const Kernels* kernels;
    bool (*runs_here)();
};

const Level levels[] = {
#if defined(GPTOSS_X86_LEVELS)
    {&avx512::kernels,
     [] {
         return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi");
     }},
    {&avx2::kernels, [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }},
#endif
    {&portable::kernels, [] { return true; }},
};
constexpr size_t level_count = sizeof levels / sizeof *levels;
constexpr size_t op_count = static_cast<size_t>(Op::count);

const char* const op_names[op_count] = {
    "bf16_gemv",  "bf16_gemm",  "int8_gemv", "int8_gemm", "int8_pack",
    "mxfp4_gemv", "mxfp4_gemm", "attention", "rms_norm",  "rope",
};

const Kernels* best() {
    for (const Level& level : levels)
        if (level.runs_here()) return level.kernels;
    return &portable::kernels;
}

std::atomic<const Kernels*>& active() {
    static std::atomic<const Kernels*> kernels{best()};
    return kernels;
}

std::array<std::array<std::atomic<long>, op_count>, level_count> calls;

} // namespace

std::vector<std::string> available_isas() {
    std::vector<std::string> names;
    for (const Level& level : levels)
        if (level.runs_here()) names.emplace_back(level.kernels->name);
    return names;
}

const Kernels& active_kernels() { return *active().load(std::memory_order_relaxed); }

void use_isa(const std::string& name) {
    for (const Level& level : levels)
        if (name == level.kernels->name && level.runs_here()) {
            active().store(level.kernels);
            return;
        }
    throw std::invalid_argument("this machine does not run the instruction set " + name);
}

void count(const Kernels& kernels, Op op) {
    for (size_t i = 0; i < level_count; i++)
        if (levels[i].kernels == &kernels)
            calls[i][static_cast<size_t>(op)].fetch_add(1, std::memory_order_relaxed);
}

std::map<std::string, long> counts() {
    std::map<std::string, long> result;
    for (size_t i = 0; i < level_count; i++)
        for (size_t op = 0; op < op_count; op++)
            if (const long n = calls[i][op].load())
                result[std::string(levels[i].kernels->name) + "." + op_names[op]] = n;
    return result;
}

void reset_counts() {
    for (auto& level : calls)
        for (auto& n : level) n.store(0);
}

} // namespace gptoss
