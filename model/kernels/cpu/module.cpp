// The Python module `_cpu`. Weights are bound once, from arrays whose types and shapes are checked here; a bound layer
// keeps references to its arrays and copies nothing. Activations are passed as addresses of contiguous memory without a
// check, because there is a call for each layer and token: `gptoss.model.ops.cpu`, the only caller, keeps the tensors
// alive during the call and is responsible for shapes and types. Every computation releases the GIL.
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
using Floats = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using AnyArray = nb::ndarray<nb::ro, nb::c_contig, nb::device::cpu>;
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

gptoss::Vector vector(const AnyArray& v, size_t size) {
    const bool bf16 = v.dtype() == nb::dtype<BFloat16>();
    require(bf16 || v.dtype() == nb::dtype<float>(), "a bias is neither bfloat16 nor float32");
    require(v.size() == size, "a bias does not go with its matrix");
    return {v.data(), bf16};
}

// A layer and references to the arrays that it reads.
struct BoundDense {
    std::unique_ptr<gptoss::Dense> layer;
    std::vector<nb::object> owners;
};

gptoss::Vector optional_vector(const std::optional<AnyArray>& bias, int rows) {
    return bias ? vector(*bias, rows) : gptoss::Vector{};
}

BoundDense bind_bf16(const Bf16Matrix& weight, const std::optional<AnyArray>& bias) {
    const int rows = dimension(weight.shape(0)), columns = dimension(weight.shape(1));
    BoundDense bound{gptoss::make_bf16_dense(bf16(weight), rows, columns, optional_vector(bias, rows)),
                     {nb::cast(weight)}};
    if (bias) bound.owners.push_back(nb::cast(*bias));
    return bound;
}

BoundDense bind_int8(const Packed& packed, int rows, int columns, const std::optional<AnyArray>& bias) {
    require_packed(packed.size(), packed.data(), dimension(rows), dimension(columns));
    BoundDense bound{gptoss::make_int8_dense(packed.data(), rows, columns, optional_vector(bias, rows)),
                     {nb::cast(packed)}};
    if (bias) bound.owners.push_back(nb::cast(*bias));
    return bound;
}

void pack_int8(const gptoss::Kernels& kernels, const Bf16Matrix& weight, const PackedOut& packed) {
    const int rows = dimension(weight.shape(0)), columns = dimension(weight.shape(1));
    require_packed(packed.size(), packed.data(), rows, columns);
    nb::gil_scoped_release release;
    gptoss::pack_int8(kernels, bf16(weight), rows, columns, packed.data());
}

bool is_packed_from(const gptoss::Kernels& kernels, const Bf16Matrix& weight, const Packed& packed) {
    const int rows = dimension(weight.shape(0)), columns = dimension(weight.shape(1));
    require_packed(packed.size(), packed.data(), rows, columns);
    return gptoss::is_packed_from(kernels, bf16(weight), rows, columns, packed.data());
}

struct BoundExperts {
    gptoss::Experts layer;
    std::vector<nb::object> owners;
};

gptoss::Mxfp4Matrix matrix(const Codes& blocks, const Scales& scales, const AnyArray& bias) {
    for (int i = 0; i < 3; i++) require(blocks.shape(i) == scales.shape(i), "codes do not go with their scales");
    require(blocks.shape(3) == gptoss::kBlockBytes, "a block of MXFP4 codes does not have 16 bytes");
    return {dimension(blocks.shape(1)), dimension(blocks.shape(2)), vector(bias, blocks.shape(0) * blocks.shape(1)),
            blocks.data(), scales.data()};
}

// parts: (experts, rows / number of parts, groups, 17) each.
gptoss::Mxfp4Matrix joined_matrix(const std::vector<Codes>& parts, bool halves, const AnyArray& bias) {
    require(parts.size() == 1 || parts.size() == 2, "a joined matrix has one or two parts");
    for (const auto& part : parts) {
        require(part.shape(3) == gptoss::kJoinedBytes, "a joined block does not have 17 bytes");
        for (int i = 0; i < 3; i++)
            require(part.shape(i) == parts[0].shape(i), "the parts of a joined matrix differ in shape");
    }
    const int rows = dimension(parts[0].shape(1)) * int(parts.size());
    gptoss::Mxfp4Matrix m{rows, dimension(parts[0].shape(2)), vector(bias, parts[0].shape(0) * rows)};
    m.parts = int(parts.size());
    m.halves = halves;
    for (int i = 0; i < m.parts; i++) m.joined[i] = parts[i].data();
    return m;
}

void require_fitting(const gptoss::Mxfp4Matrix& up, const gptoss::Mxfp4Matrix& down) {
    require(up.rows == 2 * down.groups * gptoss::kGroup && down.rows == up.groups * gptoss::kGroup,
            "the expert matrices do not fit one another");
}

BoundExperts bind_experts(const Codes& up_blocks, const Scales& up_scales, const AnyArray& up_bias,
                          const Codes& down_blocks, const Scales& down_scales, const AnyArray& down_bias) {
    const gptoss::Mxfp4Matrix up = matrix(up_blocks, up_scales, up_bias);
    const gptoss::Mxfp4Matrix down = matrix(down_blocks, down_scales, down_bias);
    require(up_blocks.shape(0) == down_blocks.shape(0), "the expert matrices differ in the number of experts");
    require_fitting(up, down);
    return {gptoss::Experts(dimension(up_blocks.shape(0)), up, down),
            {nb::cast(up_blocks), nb::cast(up_scales), nb::cast(up_bias), nb::cast(down_blocks), nb::cast(down_scales),
             nb::cast(down_bias)}};
}

BoundExperts bind_joined_experts(const std::vector<Codes>& up_parts, bool up_halves, const AnyArray& up_bias,
                                 const std::vector<Codes>& down_parts, bool down_halves, const AnyArray& down_bias) {
    const gptoss::Mxfp4Matrix up = joined_matrix(up_parts, up_halves, up_bias);
    const gptoss::Mxfp4Matrix down = joined_matrix(down_parts, down_halves, down_bias);
    require(up_parts[0].shape(0) == down_parts[0].shape(0), "the expert matrices differ in the number of experts");
    require_fitting(up, down);
    BoundExperts bound{gptoss::Experts(dimension(up_parts[0].shape(0)), up, down),
                       {nb::cast(up_bias), nb::cast(down_bias)}};
    for (const auto* parts : {&up_parts, &down_parts})
        for (const auto& part : *parts) bound.owners.push_back(nb::cast(part));
    return bound;
}

// rows, columns: of the matrix that is added to.
gptoss::LowRank low_rank(const Floats& down, const Floats& up, int experts, int rows, int columns) {
    require(down.shape(0) == size_t(experts) && up.shape(0) == size_t(experts), "low ranks for other experts");
    require(down.shape(1) == up.shape(2), "the two ranks differ");
    require(up.shape(1) == size_t(rows) && down.shape(2) == size_t(columns), "low ranks for another matrix");
    return {down.data(), up.data(), dimension(down.shape(1))};
}

void adapt(BoundExperts& bound, const Floats& down, const Floats& up, bool is_gate_up) {
    const int hidden = bound.layer.hidden(), width = bound.layer.width();
    if (is_gate_up)
        bound.layer.adapt_gate_up(low_rank(down, up, bound.layer.experts, 2 * width, hidden));
    else
        bound.layer.adapt_down(low_rank(down, up, bound.layer.experts, hidden, width));
    bound.owners.push_back(nb::cast(down));
    bound.owners.push_back(nb::cast(up));
}

// q, k, v: see gptoss::attention; strides in elements.
void attention(const gptoss::Kernels& kernels, Address q, Address k, int64_t k_position_stride, int64_t k_head_stride,
               Address v, int64_t v_position_stride, int64_t v_head_stride, bool bf16, Address sinks, int tokens,
               int64_t keys, int kv_heads, int group, int head_dim, int64_t window, Address out) {
    require(head_dim % 16 == 0, "head_dim is not a multiple of 16");
    nb::gil_scoped_release release;
    const auto side = [bf16](Address a, int64_t position, int64_t head) {
        return gptoss::KeyValues{reinterpret_cast<const void*>(a), bf16, ptrdiff_t(position), ptrdiff_t(head)};
    };
    gptoss::attention(kernels, floats(q), side(k, k_position_stride, k_head_stride),
                      side(v, v_position_stride, v_head_stride), floats(sinks), tokens, keys, kv_heads, group, head_dim,
                      window, mutable_floats(out));
}

void dense_forward(const gptoss::Kernels& kernels, const std::vector<const BoundDense*>& layers, Address x, int tokens,
                   const std::vector<Address>& outs) {
    require(!layers.empty() && layers.size() == outs.size(), "as many outputs as layers are needed");
    std::vector<const gptoss::Dense*> dense;
    std::vector<float*> to;
    for (size_t i = 0; i < layers.size(); i++) {
        dense.push_back(layers[i]->layer.get());
        to.push_back(mutable_floats(outs[i]));
        require(dense[i]->columns == dense[0]->columns, "layers of one input have the same columns");
    }
    nb::gil_scoped_release release;
    gptoss::forward(kernels, dense, floats(x), tokens, to);
}

void experts_forward(const gptoss::Kernels& kernels, const BoundExperts& experts, Address x, Address router_logits,
                     int tokens, int top_k, float alpha, float limit, Address out) {
    require(top_k >= 1 && top_k <= experts.layer.experts, "more experts a token than there are");
    nb::gil_scoped_release release;
    experts.layer.forward(kernels, floats(x), floats(router_logits), tokens, top_k, alpha, limit, mutable_floats(out));
}

void rms_norm(const gptoss::Kernels& kernels, Address x, Address scale, int tokens, int columns, float eps,
              Address out) {
    nb::gil_scoped_release release;
    gptoss::rms_norm(kernels, floats(x), floats(scale), tokens, columns, eps, mutable_floats(out));
}

void rope(const gptoss::Kernels& kernels, Address x, Address cos, Address sin, int tokens, int heads, int half,
          Address out) {
    nb::gil_scoped_release release;
    gptoss::rope(kernels, floats(x), floats(cos), floats(sin), tokens, heads, half, mutable_floats(out));
}

uint64_t read_once(const gptoss::Kernels& kernels, const AnyArray& data) {
    nb::gil_scoped_release release;
    return gptoss::read_once(kernels, data.data(), data.nbytes());
}

} // namespace

NB_MODULE(_cpu, m) {
    m.doc() = "CPU kernels of gptoss; see gptoss.model.ops.cpu";
    // Objects that live until the process ends are not destroyed one by one; nanobind would report them as leaks.
    nb::set_leak_warnings(false);

    m.attr("GEMV_TOKENS") = gptoss::kGemmTokens - 1;
    m.def("isas", &gptoss::available_isas, "Levels that this machine runs, best first.");
    m.def("keep_freed_memory", &gptoss::keep_freed_memory,
          "Let the C library keep freed memory for the next operation, in the whole process.");

    nb::class_<BoundDense>(m, "Dense", "The weights of a dense layer; any Kernels can compute with them.")
        .def_prop_ro("bytes", [](const BoundDense& d) { return d.layer->bytes(); });
    m.def("dense_bf16", &bind_bf16, "weight"_a.noconvert(), "bias"_a.noconvert().none());
    m.def("dense_int8", &bind_int8, "packed"_a.noconvert(), "rows"_a, "columns"_a, "bias"_a.noconvert().none());
    m.def("int8_bytes", [](int rows, int columns) { return gptoss::int8_bytes(dimension(rows), dimension(columns)); },
          "rows"_a, "columns"_a, "Bytes of a layer packed in eight bits.");
    nb::class_<BoundExperts>(m, "Experts", "The weights of a layer's experts; any Kernels can compute with them.")
        .def("adapt_gate_up", [](BoundExperts& e, const Floats& down, const Floats& up) { adapt(e, down, up, true); },
             "down"_a.noconvert(), "up"_a.noconvert(), "Add a product of low rank to the first product.")
        .def("adapt_down", [](BoundExperts& e, const Floats& down, const Floats& up) { adapt(e, down, up, false); },
             "down"_a.noconvert(), "up"_a.noconvert(), "Add a product of low rank to the second product.");
    m.def("experts", &bind_experts, "gate_up_blocks"_a.noconvert(), "gate_up_scales"_a.noconvert(),
          "gate_up_bias"_a.noconvert(), "down_blocks"_a.noconvert(), "down_scales"_a.noconvert(),
          "down_bias"_a.noconvert());
    m.def("joined_experts", &bind_joined_experts, "gate_up_parts"_a.noconvert(), "gate_up_halves"_a,
          "gate_up_bias"_a.noconvert(), "down_parts"_a.noconvert(), "down_halves"_a, "down_bias"_a.noconvert());

    nb::class_<gptoss::Kernels>(m, "Kernels", "One level's kernels on a number of threads, with counters of calls.")
        .def(nb::init<const std::string&, int>(), "isa"_a, "threads"_a,
             "Raises ValueError if this machine does not run the level.")
        .def_prop_ro("isa", [](const gptoss::Kernels& k) { return k.table.name; })
        .def_ro("threads", &gptoss::Kernels::threads)
        .def("counts", &gptoss::Kernels::counts, "Calls so far, by level and operation.")
        .def("dense_forward", &dense_forward, "layers"_a, "x"_a, "tokens"_a, "outs"_a,
             "Several layers of the same input.")
        .def("experts_forward", &experts_forward, "experts"_a, "x"_a, "router_logits"_a, "tokens"_a, "top_k"_a,
             "alpha"_a, "limit"_a, "out"_a)
        .def("rms_norm", &rms_norm, "x"_a, "scale"_a, "tokens"_a, "columns"_a, "eps"_a, "out"_a)
        .def("rope", &rope, "x"_a, "cos"_a, "sin"_a, "tokens"_a, "heads"_a, "half"_a, "out"_a)
        .def("attention", &attention, "q"_a, "k"_a, "k_position_stride"_a, "k_head_stride"_a, "v"_a,
             "v_position_stride"_a, "v_head_stride"_a, "bf16"_a, "sinks"_a, "tokens"_a, "keys"_a, "kv_heads"_a,
             "group"_a, "head_dim"_a, "window"_a, "out"_a)
        .def("pack_int8", &pack_int8, "weight"_a.noconvert(), "packed"_a.noconvert())
        .def("is_packed_from", &is_packed_from, "weight"_a.noconvert(), "packed"_a.noconvert(),
             "Whether the last rows of a packed layer are what these weights give.")
        .def("read_once", &read_once, "data"_a.noconvert(),
             "Read an array once, to time it; returns its sum as 64-bit words.");
}
