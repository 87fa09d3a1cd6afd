#include "experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "dispatch.h"
#include "parallel.h"

namespace gptoss {
namespace {

// One token's use of one of its experts.
struct Assignment {
    int token;
    float share; // weight of the expert's output
};

struct Routing {
    struct Group {
        int expert, first, count; // assignments first .. first + count - 1 use this expert
    };
    std::vector<Assignment> assignments; // (tokens * top_k,), sorted by expert
    std::vector<int> of_token;           // (tokens, top_k): indices of each token's assignments
    std::vector<Group> groups;           // of the experts in use, in order
};

// logits (tokens, experts).
Routing route(const float* logits, int tokens, int experts, int top_k) {
    std::vector<int> chosen(size_t(tokens) * top_k), order(experts);
    std::vector<float> shares(chosen.size());
    std::vector<int> first(experts + 1);
    for (int t = 0; t < tokens; t++) {
        const float* row = logits + size_t(t) * experts;
        // NaN counts as the largest, so that it is chosen and reaches the output.
        const auto above = [&](int a, int b) {
            if (std::isnan(row[a]) || std::isnan(row[b])) return std::isnan(row[a]) && !std::isnan(row[b]);
            return row[a] > row[b];
        };
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), order.begin() + top_k, order.end(), above);
        float total = 0.0f;
        for (int i = 0; i < top_k; i++) {
            chosen[size_t(t) * top_k + i] = order[i];
            total += shares[size_t(t) * top_k + i] = std::exp(row[order[i]] - row[order[0]]);
            first[order[i] + 1]++;
        }
        for (int i = 0; i < top_k; i++) shares[size_t(t) * top_k + i] /= total;
    }
    std::partial_sum(first.begin(), first.end(), first.begin());
    Routing routing;
    for (int e = 0; e < experts; e++)
        if (first[e + 1] > first[e]) routing.groups.push_back({e, first[e], first[e + 1] - first[e]});
    routing.assignments.resize(chosen.size());
    routing.of_token.resize(chosen.size());
    for (size_t i = 0; i < chosen.size(); i++) {
        routing.of_token[i] = first[chosen[i]]++;
        routing.assignments[routing.of_token[i]] = {int(i / top_k), shares[i]};
    }
    return routing;
}

// A thread's buffers for products of 32 rows of an expert with the activations of its tokens.
class Product {
  public:
    Product(const KernelTable& k, int most_tokens)
        : k_(k), values_(most_tokens), scales_(most_tokens), sums(size_t(most_tokens) * kPanelRows),
          panel_(kPanelGroups * kGroup * kPanelRows), factors_(kPanelGroups * kPanelRows) {}

    // sums[i * 32 + r] = row `first + r` of the expert times activations `inputs[i]` of x, for `rows` <= 32 rows and
    // `tokens` inputs. Few tokens read the activations as arranged[i]; only then they are arranged.
    void compute(const Mxfp4Matrix& m, int expert, int first, int rows, const Activations& x, const int* inputs,
                 int tokens, const int8_t* const* arranged) {
        if (tokens < kGemmTokens) {
            for (int i = 0; i < tokens; i++)
                few(m, expert, first, rows, arranged[i], x.scales(inputs[i]), sums.get() + size_t(i) * kPanelRows);
            return;
        }
        std::fill_n(sums.get(), size_t(tokens) * kPanelRows, 0.0f);
        for (int g = 0; g < m.groups; g += kPanelGroups) {
            const int n = std::min(kPanelGroups, m.groups - g);
            if (m.parts)
                unpack_joined(m, expert, first, rows, g, n);
            else
                unpack(m, expert, first, rows, g, n);
            for (int i = 0; i < tokens; i++) {
                values_[i] = x.values(inputs[i]) + size_t(g) * kGroup;
                scales_[i] = x.scales(inputs[i]) + g;
            }
            k_.panel_gemm(panel_.get(), factors_.get(), n, values_.data(), scales_.data(), tokens, sums.get());
        }
    }

  private:
    void few(const Mxfp4Matrix& m, int expert, int first, int rows, const int8_t* arranged, const float* x_scales,
             float* to) {
        if (!m.parts) {
            k_.mxfp4_rows(m.block(expert, first), m.scale(expert, first), rows, m.groups, arranged, x_scales, to);
        } else {
            const uint8_t* parts[2];
            for (int p = 0; p < m.parts; p++) parts[p] = m.joined_row(p, expert, first / m.parts);
            float apart[kPanelRows];
            const int rows_of_part = rows / m.parts;
            k_.joined_rows(parts, m.parts, rows_of_part, m.groups, arranged, x_scales, apart);
            for (int r = 0; r < rows; r++) to[r] = apart[r % m.parts * rows_of_part + r / m.parts];
        }
    }

    // Unpacks groups g .. g + n - 1 into the panel.
    void unpack(const Mxfp4Matrix& m, int expert, int first, int rows, int g, int n) {
        // Prefetch a part of the next panel, which this thread computes next: its many short pieces of rows defeat the
        // hardware prefetcher.
        const uint8_t *blocks = m.block(expert, first), *scales = m.scale(expert, first);
        const size_t part = size_t(rows) * n, next = size_t(rows) * m.groups + size_t(rows) * g;
        for (size_t i = 0; i < part; i += 4) __builtin_prefetch(blocks + (next + i) * kBlockBytes, 0, 2);
        for (size_t i = 0; i < part; i += 64) __builtin_prefetch(scales + next + i, 0, 2);
        k_.unpack_mxfp4(blocks + size_t(g) * kBlockBytes, scales + g, rows, m.groups, n, panel_.get(), factors_.get());
    }
    void unpack_joined(const Mxfp4Matrix& m, int expert, int first, int rows, int g, int n) {
        const uint8_t* from[kPanelRows];
        for (int r = 0; r < rows; r++)
            from[r] = m.joined_row(r % m.parts, expert, (first + r) / m.parts) + size_t(g) * kJoinedBytes;
        const int rows_of_part = rows / m.parts;
        const size_t piece = size_t(rows_of_part) * n * kJoinedBytes; // of each part, of the next panel
        for (int p = 0; p < m.parts; p++) {
            const uint8_t* next = m.joined_row(p, expert, first / m.parts + rows_of_part) +
                                  size_t(rows_of_part) * g * kJoinedBytes;
            for (size_t i = 0; i < piece; i += 64) __builtin_prefetch(next + i, 0, 2);
        }
        k_.unpack_joined(from, rows, n, panel_.get(), factors_.get());
    }

    const KernelTable& k_;
    std::vector<const int16_t*> values_;
    std::vector<const float*> scales_;

  public:
    Buffer<float> sums;

  private:
    Buffer<int16_t> panel_;
    Buffer<float> factors_;
};

// The activations of assignments to experts with few tokens, reordered by KernelTable::arrange. inputs[a]: the row of x
// that assignment a reads.
class Arranged {
  public:
    Arranged(const Kernels& kernels, const Routing& routing, const Activations& x, const std::vector<int>& inputs)
        : pointers_(routing.assignments.size()) {
        std::vector<int> few;
        for (const auto& group : routing.groups)
            if (group.count < kGemmTokens)
                for (int i = 0; i < group.count; i++) few.push_back(group.first + i);
        const size_t groups = x.stride() / kGroup;
        storage_ = Buffer<int8_t>(few.size() * groups * kArrangedBytes);
        parallel_for(few.size() < 8 ? 1 : kernels.threads, int64_t(few.size()), 1, [&](int64_t i, int) {
            int8_t* arranged = storage_.get() + i * groups * kArrangedBytes;
            kernels.table.arrange(x.values(inputs[few[i]]), int(groups), arranged);
            pointers_[few[i]] = arranged;
        });
    }
    const int8_t* const* operator[](int assignment) const { return pointers_.data() + assignment; }

  private:
    Buffer<int8_t> storage_;
    std::vector<const int8_t*> pointers_;
};

// Moves columns j and j + 16 of every group to 2j and 2j + 1.
void interleave_halves(int16_t* q, size_t columns) {
    for (size_t g = 0; g < columns; g += kGroup) {
        int16_t group[kGroup];
        std::copy_n(q + g, kGroup, group);
        for (int j = 0; j < kPairs; j++) {
            q[g + 2 * j] = group[j];
            q[g + 2 * j + 1] = group[j + kPairs];
        }
    }
}

// The sum of a[i] * b[i], in an order that does not depend on the number of tokens or threads.
float dot(const float* a, const float* b, int n) {
    float sums[8] = {};
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++) sums[j] += a[i + j] * b[i + j];
    float total = 0.0f;
    for (; i < n; i++) total += a[i] * b[i];
    for (float sum : sums) total += sum;
    return total;
}

// The inner vectors of a product of low rank, down x, of every assignment.
class Inner {
  public:
    // inputs[a]: the row of x (.., columns) that assignment a reads.
    Inner(const Kernels& kernels, const LowRank& low_rank, const Routing& routing, const float* x, int columns,
          const std::vector<int>& inputs)
        : low_rank_(low_rank), values_(size_t(inputs.size()) * low_rank.rank) {
        if (!low_rank.rank) return;
        parallel_for(kernels.threads, int64_t(routing.groups.size()), 1, [&](int64_t g, int) {
            const auto& group = routing.groups[g];
            for (int r = 0; r < low_rank.rank; r++) {
                const float* row = low_rank.down + (size_t(group.expert) * low_rank.rank + r) * columns;
                for (int a = group.first; a < group.first + group.count; a++)
                    values_.get()[size_t(a) * low_rank.rank + r] = dot(row, x + size_t(inputs[a]) * columns, columns);
            }
        });
    }
    // Adds rows first .. first + rows - 1 of the product of an assignment.
    void add(int assignment, int expert, int first, int rows, int all_rows, float* sums) const {
        const int rank = low_rank_.rank;
        if (!rank) return;
        const float* up = low_rank_.up + (size_t(expert) * all_rows + first) * rank;
        for (int r = 0; r < rows; r++)
            sums[r] += dot(up + size_t(r) * rank, values_.get() + size_t(assignment) * rank, rank);
    }

  private:
    const LowRank& low_rank_;
    Buffer<float> values_;
};

int panels(int rows) { return (rows + kPanelRows - 1) / kPanelRows; }

} // namespace

void Experts::forward(const Kernels& kernels, const float* x, const float* router_logits, int tokens, int top_k,
                      float alpha, float limit, float* out) const {
    const KernelTable& k = kernels.table;
    const int threads = kernels.threads;
    const Routing routing = route(router_logits, tokens, experts, top_k);
    const int assignments = int(routing.assignments.size());
    int most = 0;
    for (const auto& group : routing.groups) {
        most = std::max(most, group.count);
        kernels.count(group.count < kGemmTokens ? Op::mxfp4_gemv : Op::mxfp4_gemm);
    }
    std::vector<Product> products;
    products.reserve(threads);
    for (int i = 0; i < threads; i++) products.emplace_back(k, most);

    const Activations q(tokens, hidden());
    parallel_for(tokens < 8 ? 1 : threads, tokens, 4, [&](int64_t t, int) {
        q.quantize(k, x, int(t));
        if (gate_up_.halves) interleave_halves(q.values(int(t)), q.stride());
    });
    // Rows of activations that an assignment reads: its token's in the first product, its own in the second.
    std::vector<int> token_of(assignments), self(assignments);
    for (int a = 0; a < assignments; a++) token_of[a] = routing.assignments[a].token;
    std::iota(self.begin(), self.end(), 0);

    const Arranged arranged(kernels, routing, q, token_of);
    const Inner inner(kernels, gate_up_low_rank_, routing, x, hidden(), token_of);
    const Buffer<float> activated(size_t(assignments) * width()); // after the SwiGLU
    const int up_panels = panels(gate_up_.rows);
    parallel_for(threads, int64_t(routing.groups.size()) * up_panels, tokens == 1 ? 4 : 2, [&](int64_t item, int id) {
        const auto& group = routing.groups[item / up_panels];
        const int first = int(item % up_panels) * kPanelRows, rows = std::min(kPanelRows, gate_up_.rows - first);
        Product& product = products[id];
        product.compute(gate_up_, group.expert, first, rows, q, token_of.data() + group.first, group.count,
                        arranged[group.first]);
        float bias[kPanelRows];
        gate_up_.bias.read(size_t(group.expert) * gate_up_.rows + first, rows, bias);
        for (int i = 0; i < group.count; i++) {
            float* sums = product.sums.get() + size_t(i) * kPanelRows;
            for (int r = 0; r < rows; r++) sums[r] += bias[r];
            inner.add(group.first + i, group.expert, first, rows, gate_up_.rows, sums);
            k.swiglu(sums, rows / 2, alpha, limit, activated.get() + size_t(group.first + i) * width() + first / 2);
        }
    });

    const Activations h(assignments, width());
    parallel_for(assignments < 8 ? 1 : threads, assignments, 4, [&](int64_t a, int) {
        h.quantize(k, activated.get(), int(a));
        if (down_.halves) interleave_halves(h.values(int(a)), h.stride());
    });
    const Arranged h_arranged(kernels, routing, h, self);
    const Inner h_inner(kernels, down_low_rank_, routing, activated.get(), width(), self);
    const Buffer<float> outputs(size_t(assignments) * hidden());
    const int down_panels = panels(hidden());
    parallel_for(threads, int64_t(routing.groups.size()) * down_panels, 1, [&](int64_t item, int id) {
        const auto& group = routing.groups[item / down_panels];
        const int first = int(item % down_panels) * kPanelRows, rows = std::min(kPanelRows, hidden() - first);
        Product& product = products[id];
        product.compute(down_, group.expert, first, rows, h, self.data() + group.first, group.count,
                        h_arranged[group.first]);
        float bias[kPanelRows];
        down_.bias.read(size_t(group.expert) * hidden() + first, rows, bias);
        for (int i = 0; i < group.count; i++) {
            const float* sums = product.sums.get() + size_t(i) * kPanelRows;
            float* to = outputs.get() + size_t(group.first + i) * hidden() + first;
            for (int r = 0; r < rows; r++) to[r] = sums[r] + bias[r];
            h_inner.add(group.first + i, group.expert, first, rows, hidden(), to);
        }
    });
    parallel_for(tokens < 8 ? 1 : threads, tokens, 4, [&](int64_t t, int) {
        float* to = out + size_t(t) * hidden();
        std::fill_n(to, hidden(), 0.0f);
        for (int i = 0; i < top_k; i++) {
            const int a = routing.of_token[size_t(t) * top_k + i];
            const float share = routing.assignments[a].share;
            const float* from = outputs.get() + size_t(a) * hidden();
            for (int c = 0; c < hidden(); c++) to[c] += share * from[c];
        }
    });
}

} // namespace gptoss
