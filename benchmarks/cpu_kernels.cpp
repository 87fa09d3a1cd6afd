// The speed of each kernel alone, on one thread by its CPU time, so that a busy machine disturbs little.
//
//   sh benchmarks/cpu_kernels.sh [avx512|avx2|portable]
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "../model/kernels/cpu/dense.h"
#include "../model/kernels/cpu/dispatch.h"

using namespace gptoss;

namespace {

constexpr int columns = 2880, groups = columns / kGroup;
constexpr size_t cold = size_t(1) << 27; // bytes, far more than the caches hold

double now() {
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}

template <class Function> void measure(const char* name, double work, const char* unit, const Function& f) {
    double best = 1e9;
    for (int i = 0; i < 8; i++) {
        const double begin = now();
        f();
        best = std::min(best, now() - begin);
    }
    std::printf("%-34s %8.1f %s\n", name, work / best * 1e-9, unit);
}

} // namespace

int main(int argc, char** argv) {
    const Kernels kernels(argc > 1 ? argv[1] : available_isas().front(), 1);
    const KernelTable& k = kernels.table;
    std::printf("%s\n", k.name);

    const Buffer<uint8_t> weights(cold);
    for (size_t i = 0; i < cold; i++) weights[i] = uint8_t(i * 0x9E3779B97F4A7C15ull >> 56);
    const Buffer<uint8_t> scales(cold / 16);
    for (size_t i = 0; i < cold / 16; i++) scales[i] = uint8_t(119 + i % 3);
    const Buffer<uint16_t> bf16_scales(cold / 32);
    for (size_t i = 0; i < cold / 32; i++) bf16_scales[i] = 0x3c00;
    const auto* bf16 = reinterpret_cast<const uint16_t*>(weights.get());
    const auto* int8 = reinterpret_cast<const int8_t*>(weights.get());

    constexpr int tokens = 60;
    std::vector<float> x(size_t(tokens) * columns), out(size_t(1) << 20);
    for (float& value : x) value = float(std::rand() % 2000 - 1000) / 500.0f;
    const Activations q(tokens, columns);
    for (int t = 0; t < tokens; t++) q.quantize(k, x.data(), t);
    const Buffer<int8_t> arranged(q.stride() / kGroup * kArrangedBytes);
    k.arrange(q.values(0), int(q.stride() / kGroup), arranged.get());

    uint64_t sum = 0;
    measure("read loop", double(cold), "GB/s", [&] { sum += k.read_once(weights.get(), cold); });
    constexpr int row_bytes = groups * kBlockBytes, mxfp4_rows = int(cold / row_bytes) / 32 * 32;
    measure("MXFP4 rows from memory", double(mxfp4_rows) * (row_bytes + groups), "GB/s", [&] {
        for (int r = 0; r < mxfp4_rows; r += 32)
            k.mxfp4_rows(weights.get() + size_t(r) * row_bytes, scales.get() + size_t(r) * groups, 32, groups,
                         arranged.get(), q.scales(0), out.data());
    });
    measure("MXFP4 rows from the cache", 1000.0 * 16 * (row_bytes + groups), "GB/s", [&] {
        for (int i = 0; i < 1000; i++)
            k.mxfp4_rows(weights.get(), scales.get(), 16, groups, arranged.get(), q.scales(0), out.data());
    });
    constexpr int panel_bytes = columns * kPanelRows, panels = int(cold / panel_bytes);
    measure("int8 panels from memory", double(panels) * (panel_bytes + 2 * kPanelRows * groups), "GB/s", [&] {
        for (int p = 0; p < panels; p++)
            k.int8_panel(int8 + size_t(p) * panel_bytes, bf16_scales.get() + size_t(p) * groups * kPanelRows, groups,
                         q.values(0), q.scales(0), out.data());
    });
    constexpr int bf16_count = int(cold / columns / 2);
    measure("bfloat16 rows from memory", double(bf16_count) * columns * 2, "GB/s",
            [&] { k.bf16_rows(bf16, bf16_count, columns, x.data(), out.data()); });

    const Buffer<int16_t> panel(kPanelGroups * kGroup * kPanelRows);
    const Buffer<float> factors(kPanelGroups * kPanelRows);
    constexpr double panel_weights = kPanelGroups * kGroup * kPanelRows;
    std::vector<const int16_t*> values(tokens);
    std::vector<const float*> x_scales(tokens);
    for (int t = 0; t < tokens; t++) values[t] = q.values(t), x_scales[t] = q.scales(t);
    measure("unpack MXFP4", 100 * panel_weights, "G weights/s", [&] {
        for (int i = 0; i < 100; i++)
            k.unpack_mxfp4(weights.get(), scales.get(), 32, groups, kPanelGroups, panel.get(), factors.get());
    });
    measure("unpack int8", 100 * panel_weights, "G weights/s", [&] {
        for (int i = 0; i < 100; i++)
            k.unpack_int8(int8, bf16_scales.get(), kPanelGroups, panel.get(), factors.get());
    });
    measure("panel times 60 tokens", 100 * panel_weights * tokens, "G MAC/s", [&] {
        for (int i = 0; i < 100; i++)
            k.panel_gemm(panel.get(), factors.get(), kPanelGroups, values.data(), x_scales.data(), tokens, out.data());
    });
    measure("32 bfloat16 rows times 60 tokens", 32.0 * columns * tokens, "G MAC/s",
            [&] { k.bf16_block(bf16, 32, columns, x.data(), tokens, out.data(), 32); });
    const Buffer<int8_t> packed(panel_bytes);
    const Buffer<uint16_t> packed_scales(groups * kPanelRows);
    measure("pack int8", 100.0 * panel_bytes, "G weights/s", [&] {
        for (int i = 0; i < 100; i++) k.pack_int8(bf16, 32, columns, packed.get(), packed_scales.get());
    });

    constexpr int keys = 8192, head_dim = 64, group = 8;
    std::vector<float> sinks(group), scratch(attention_scratch(group, head_dim));
    const Strided kv{weights.get(), head_dim, true};
    measure("attention, 1 query on 8192 keys", 2.0 * keys * head_dim * group, "G MAC/s", [&] {
        AttentionTask task{};
        task.q = x.data(), task.out = out.data(), task.q_stride = group * head_dim, task.sinks = sinks.data();
        task.k = task.v = kv, task.tokens = 1, task.group = group, task.head_dim = head_dim;
        task.first_position = keys - 1, task.end = keys, task.scratch = scratch.data();
        k.attention(task);
    });
    return sum == 1; // used, so that no call is optimised away
}
