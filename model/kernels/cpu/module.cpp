// What Python sees of the kernels. Weights are bound once, from arrays whose shapes are checked here; a layer keeps its
// arrays alive. Activations cross as addresses of contiguous memory, since a call is made for each layer and token:
// `gptoss.model.ops.cpu` is their only caller and vouches for them.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <limits>
#include <stdexcept>

#include "bandwidth.h"
#include "dense.h"
#include "dispatch.h"
#include "experts.h"
#include "sequence.h"

namespace nb = nanobind;
using namespace nb::literals;

struct BFloat16 {
    uint16_t bits;
};
template <> struct nanobind::detail::dtype_traits<BFloat16> {
    static constexpr dlpack::dtype value{static_cast<uint8_t>(dlpack::dtype_code::Bfloat), 16, 1};
    static constexpr auto name = const_name("bfloat16");
};

namespace {

using Bf16Matrix = nb::ndarray<const BFloat16, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Codes = nb::ndarray<const uint8_t, nb::ndim<4>, nb::c_contig, nb::device::cpu>;
using Scales = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Packed = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using PackedOut = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using AnyVector = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
using Address = uintptr_t;

const float* floats(Address a) { return reinterpret_cast<const float*>(a); }
float* mutable_floats(Address a) { return reinterpret_cast<float*>(a); }

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}

const uint16_t* bf16(const Bf16Matrix& weight) { return reinterpret_cast<const uint16_t*>(weight.data()); }

void require_packed(size_t bytes, const void* data, int rows, int columns) {
    require(bytes == gptoss::int8_bytes(rows, columns), "a packed layer does not have the bytes of its shape");
    require(reinterpret_cast<Address>(data) % 64 == 0, "a packed layer is not aligned to 64 bytes");
}

int dimension(size_t n) {
    require(n >= 1 && n <= size_t(1) << 24, "a matrix has a dimension that is empty or beyond 2^24");
    return int(n);
}

gptoss::Vector vector(const AnyVector& v, size_t size) {
    const bool bf16 = v.dtype() == nb::dtype<BFloat16>();
    require(bf16 || v.dtype() == nb::dtype<float>(), "a bias is neither bfloat16 nor float32");
    require(v.size() == size, "a bias does not go with its matrix");
    return {v.data(), bf16};
}

// A layer, and the arrays it reads from.
struct BoundDense {
    std::unique_ptr<gptoss::Dense> layer;
    std::vector<nb::object> owners;
};

gptoss::Vector optional_vector(const std::optional<AnyVector>& bias, int rows) {
    return bias ? vector(*bias, rows) : gptoss::Vector{};
}

BoundDense bind_bf16(const Bf16Matrix& weight, const std::optional<AnyVector>& bias) {
    const int rows = dimension(weight.shape(0)), columns = dimension(weight.shape(1));
    BoundDense bound{gptoss::make_bf16_dense(bf16(weight), rows, columns, optional_vector(bias, rows)),
                     {nb::cast(weight)}};
    if (bias) bound.owners.push_back(nb::cast(*bias));
    return bound;
}

BoundDense bind_int8(const Packed& packed, int rows, int columns, const std::optional<AnyVector>& bias) {
    require_packed(packed.size(), packed.data(), dimension(rows), dimension(columns));
    BoundDense bound{gptoss::make_int8_dense(packed.data(), rows, columns, optional_vector(bias, rows)),
                     {nb::cast(packed)}};
    if (bias) bound.owners.push_back(nb::cast(*bias));
    return bound;
}

void pack_int8(const Bf16Matrix& weight, const PackedOut& packed, int threads) {
    const int rows = dimension(weight.shape(0)), columns = dimension(weight.shape(1));
    require_packed(packed.size(), packed.data(), rows, columns);
    nb::gil_scoped_release release;
    gptoss::pack_int8(bf16(weight), rows, columns, packed.data(), threads);
}

bool is_packed_from(const Bf16Matrix& weight, const Packed& packed) {
    const int rows = dimension(weight.shape(0)), columns = dimension(weight.shape(1));
    require_packed(packed.size(), packed.data(), rows, columns);
    return gptoss::is_packed_from(bf16(weight), rows, columns, packed.data());
}

struct BoundExperts {
    gptoss::Experts layer;
    std::vector<nb::object> owners;
};

gptoss::Mxfp4Matrix matrix(const Codes& blocks, const Scales& scales, const AnyVector& bias) {
    for (int i = 0; i < 3; i++) require(blocks.shape(i) == scales.shape(i), "codes do not go with their scales");
    require(blocks.shape(3) == gptoss::kBlockBytes, "a block of MXFP4 codes does not have 16 bytes");
    return {blocks.data(), scales.data(), dimension(blocks.shape(1)), dimension(blocks.shape(2)),
            vector(bias, blocks.shape(0) * blocks.shape(1))};
}

BoundExperts bind_experts(const Codes& up_blocks, const Scales& up_scales, const AnyVector& up_bias,
                          const Codes& down_blocks, const Scales& down_scales, const AnyVector& down_bias) {
    const gptoss::Mxfp4Matrix up = matrix(up_blocks, up_scales, up_bias);
    const gptoss::Mxfp4Matrix down = matrix(down_blocks, down_scales, down_bias);
    require(up_blocks.shape(0) == down_blocks.shape(0), "the expert matrices differ in the number of experts");
    require(up.rows == 2 * down.groups * gptoss::kGroup && down.rows == up.groups * gptoss::kGroup,
            "the expert matrices do not fit one another");
    return {gptoss::Experts(dimension(up_blocks.shape(0)), up, down),
            {nb::cast(up_blocks), nb::cast(up_scales), nb::cast(up_bias), nb::cast(down_blocks), nb::cast(down_scales),
             nb::cast(down_bias)}};
}

} // namespace

NB_MODULE(_cpu, m) {
    m.doc() = "CPU kernels of gptoss; see gptoss.model.ops.cpu";
    // What lives until the program ends is not put away piece by piece; nanobind would call that a leak.
    nb::set_leak_warnings(false);

    m.attr("GEMV_TOKENS") = gptoss::kGemmTokens - 1;
    m.def("isas", &gptoss::available_isas, "Levels that this machine runs, best first.");
    m.def("isa", [] { return gptoss::active_kernels().name; }, "The level in use.");
    m.def("use_isa", &gptoss::use_isa, "name"_a, "Choose a level; ValueError where the machine does not run it.");
    m.def("counts", &gptoss::counts, "Calls since the last reset, by level and operation.");
    m.def("reset_counts", &gptoss::reset_counts);

    nb::class_<BoundDense>(m, "Dense")
        .def_prop_ro("bytes", [](const BoundDense& d) { return d.layer->bytes(); });
    m.def("dense_forward",
          [](const std::vector<const BoundDense*>& layers, Address x, int tokens, const std::vector<Address>& outs,
             int threads) {
              require(!layers.empty() && layers.size() == outs.size(), "as many outputs as layers are needed");
              std::vector<const gptoss::Dense*> dense;
              std::vector<float*> to;
              for (size_t i = 0; i < layers.size(); i++) {
                  dense.push_back(layers[i]->layer.get());
                  to.push_back(mutable_floats(outs[i]));
                  require(dense[i]->columns == dense[0]->columns, "layers of one input have the same columns");
              }
              nb::gil_scoped_release release;
              gptoss::forward(dense, floats(x), tokens, to, threads);
          },
          "layers"_a, "x"_a, "tokens"_a, "outs"_a, "threads"_a, "Several layers of the same input.");
    m.def("dense_bf16", &bind_bf16, "weight"_a.noconvert(), "bias"_a.noconvert().none());
    m.def("dense_int8", &bind_int8, "packed"_a.noconvert(), "rows"_a, "columns"_a, "bias"_a.noconvert().none());
    m.def("int8_bytes", [](int rows, int columns) { return gptoss::int8_bytes(dimension(rows), dimension(columns)); },
          "rows"_a, "columns"_a, "Bytes of a layer that is packed in eight bits.");
    m.def("pack_int8", &pack_int8, "weight"_a.noconvert(), "packed"_a.noconvert(), "threads"_a);
    m.def("is_packed_from", &is_packed_from, "weight"_a.noconvert(), "packed"_a.noconvert(),
          "Whether the last rows of a packed layer are what these weights give.");

    nb::class_<BoundExperts>(m, "Experts")
        .def("forward",
             [](const BoundExperts& e, Address x, Address router_logits, int tokens, int top_k, float alpha,
                float limit, Address out, int threads) {
                 require(top_k >= 1 && top_k <= e.layer.experts, "more experts a token than there are");
                 nb::gil_scoped_release release;
                 e.layer.forward(floats(x), floats(router_logits), tokens, top_k, alpha, limit, mutable_floats(out),
                                 threads);
             },
             "x"_a, "router_logits"_a, "tokens"_a, "top_k"_a, "alpha"_a, "limit"_a, "out"_a, "threads"_a);
    m.def("experts", &bind_experts, "gate_up_blocks"_a.noconvert(), "gate_up_scales"_a.noconvert(),
          "gate_up_bias"_a.noconvert(), "down_blocks"_a.noconvert(), "down_scales"_a.noconvert(),
          "down_bias"_a.noconvert());

    m.def("keep_freed_memory", &gptoss::keep_freed_memory,
          "Have the C library keep freed memory for the next operation, for all of the process.");
    m.def("read_once",
          [](nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu> data, int threads) {
              nb::gil_scoped_release release;
              return gptoss::read_once(data.data(), data.nbytes(), threads);
          },
          "data"_a.noconvert(), "threads"_a, "Read an array once, to time it.");
    m.def("rms_norm",
          [](Address x, Address scale, int tokens, int columns, float eps, Address out, int threads) {
              nb::gil_scoped_release release;
              gptoss::rms_norm(floats(x), floats(scale), tokens, columns, eps, mutable_floats(out), threads);
          },
          "x"_a, "scale"_a, "tokens"_a, "columns"_a, "eps"_a, "out"_a, "threads"_a);
    m.def("rope",
          [](Address x, Address cos, Address sin, int tokens, int heads, int half, Address out, int threads) {
              nb::gil_scoped_release release;
              gptoss::rope(floats(x), floats(cos), floats(sin), tokens, heads, half, mutable_floats(out), threads);
          },
          "x"_a, "cos"_a, "sin"_a, "tokens"_a, "heads"_a, "half"_a, "out"_a, "threads"_a);
    m.def("attention",
          [](Address q, Address k, int64_t k_position_stride, int64_t k_head_stride, Address v,
             int64_t v_position_stride, int64_t v_head_stride, bool bf16, Address sinks, int tokens, int64_t keys,
             int kv_heads, int group, int head_dim, int64_t window, Address out, int threads) {
              require(head_dim % 16 == 0, "head_dim is not a multiple of 16");
              nb::gil_scoped_release release;
              const auto side = [bf16](Address a, int64_t position, int64_t head) {
                  return gptoss::KeyValues{reinterpret_cast<const void*>(a), bf16, ptrdiff_t(position),
                                           ptrdiff_t(head)};
              };
              gptoss::attention(floats(q), side(k, k_position_stride, k_head_stride),
                                side(v, v_position_stride, v_head_stride), floats(sinks), tokens, keys, kv_heads, group,
                                head_dim, window, mutable_floats(out), threads);
          },
          "q"_a, "k"_a, "k_position_stride"_a, "k_head_stride"_a, "v"_a, "v_position_stride"_a, "v_head_stride"_a,
          "bf16"_a, "sinks"_a, "tokens"_a, "keys"_a, "kv_heads"_a, "group"_a, "head_dim"_a, "window"_a, "out"_a,
          "threads"_a);
}
