// Vectors of W floats or W 32-bit integers for the instruction set that this translation unit is compiled for.
//
// Arithmetic uses the vector extension of GCC and Clang; what it cannot express is written with intrinsics, once per
// level. Everything is in a namespace of the level: if two units compiled with different flags had an inline function
// of the same name, the linker would keep one of the two for both. For the same reason no template of the standard
// library is used in the units that include this header.
#pragma once
#include <cstdint>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels.h"

namespace gptoss::GPTOSS_ISA {

// 32-bit lanes per vector.
#if defined(__AVX512F__)
constexpr int W = 16;
#elif defined(__AVX2__)
constexpr int W = 8;
#else
constexpr int W = 4;
#endif

// F, I, U: W lanes of 32 bits. S, Words: the same bytes as 16-bit or 64-bit lanes. HalfU, QuarterU: W narrow lanes.
typedef float F __attribute__((vector_size(4 * W)));
typedef int32_t I __attribute__((vector_size(4 * W)));
typedef uint32_t U __attribute__((vector_size(4 * W)));
typedef int16_t S __attribute__((vector_size(4 * W)));
typedef uint16_t HalfU __attribute__((vector_size(2 * W)));
typedef uint8_t QuarterU __attribute__((vector_size(W)));
typedef uint64_t Words __attribute__((vector_size(4 * W)));

template <class V> inline V load_as(const void* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}
template <class V> inline void store_as(void* p, V v) { std::memcpy(p, &v, sizeof v); }

inline F load(const float* p) { return load_as<F>(p); }
inline void store(float* p, F v) { store_as(p, v); }
inline F set1(float x) { return F{} + x; }
inline I set1_int(int32_t x) { return I{} + x; }
inline F as_float(I v) { return (F)v; }
inline I as_int(F v) { return (I)v; }
inline F to_float(I v) { return __builtin_convertvector(v, F); }

// GCC 12 compiles some conversions between widths lane by lane, hence the intrinsics.
inline U widen(QuarterU v) {
#if defined(__AVX512F__)
    return (U)_mm512_cvtepu8_epi32((__m128i)v);
#elif defined(__AVX2__)
    return (U)_mm256_cvtepu8_epi32(_mm_set_epi64x(0, (int64_t)v));
#else
    return __builtin_convertvector(v, U);
#endif
}
inline U widen(HalfU v) {
#if defined(__AVX512F__)
    return (U)_mm512_cvtepu16_epi32((__m256i)v);
#elif defined(__AVX2__)
    return (U)_mm256_cvtepu16_epi32((__m128i)v);
#elif defined(__SSE2__)
    return (U)_mm_unpacklo_epi16(_mm_set_epi64x(0, (int64_t)v), _mm_setzero_si128());
#else
    return __builtin_convertvector(v, U);
#endif
}
inline void store_as_16_bits(int16_t* p, I v) {
#if defined(__AVX512F__)
    store_as(p, _mm512_cvtepi32_epi16((__m512i)v));
#else
    store_as(p, __builtin_convertvector(v, HalfU));
#endif
}

inline void store_as_8_bits(int8_t* p, I v) {
#if defined(__AVX512F__)
    store_as(p, _mm512_cvtepi32_epi8((__m512i)v));
#else
    int32_t lanes[W];
    store_as(lanes, v);
    for (int i = 0; i < W; i++) p[i] = int8_t(lanes[i]);
#endif
}

inline F load_bf16(const uint16_t* p) { return (F)(widen(load_as<HalfU>(p)) << 16); }
inline float bf16_to_float(uint16_t h) {
    uint32_t bits = uint32_t(h) << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline F max(F a, F b) { return a > b ? a : b; }
inline F min(F a, F b) { return a < b ? a : b; }
inline I max_int(I a, I b) { return a > b ? a : b; }

inline float sum(F v) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps((__m512)v);
#else
    float lanes[W];
    store(lanes, v);
    for (int n = W / 2; n; n /= 2)
        for (int i = 0; i < n; i++) lanes[i] += lanes[i + n];
    return lanes[0];
#endif
}
inline float max_lane(F v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps((__m512)v);
#else
    float lanes[W];
    store(lanes, v);
    for (int i = 1; i < W; i++) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
#endif
}
inline int32_t max_lane_int(I v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_epi32((__m512i)v);
#else
    int32_t lanes[W];
    store_as(lanes, v);
    for (int i = 1; i < W; i++) lanes[0] = lanes[i] > lanes[0] ? lanes[i] : lanes[0];
    return lanes[0];
#endif
}

// The pair of 16-bit integers at p in every lane.
inline I set1_pair(const int16_t* p) {
    int32_t pair;
    std::memcpy(&pair, p, 4);
    return set1_int(pair);
}

// Per 32-bit lane, with lanes of a and b as pairs of 16-bit integers: acc + a.low * b.low + a.high * b.high.
inline I dot_pairs(I acc, I a, I b) {
#if defined(__AVX512VNNI__)
    return (I)_mm512_dpwssd_epi32((__m512i)acc, (__m512i)a, (__m512i)b);
#elif defined(__AVX2__)
    return acc + (I)_mm256_madd_epi16((__m256i)a, (__m256i)b);
#elif defined(__SSE2__)
    return acc + (I)_mm_madd_epi16((__m128i)a, (__m128i)b);
#elif defined(__aarch64__)
    int16x8_t x = (int16x8_t)a, y = (int16x8_t)b;
    int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
    return acc + (I)vpaddq_s32(low, high);
#else
    return acc + ((a << 16) >> 16) * ((b << 16) >> 16) + (a >> 16) * (b >> 16);
#endif
}

// E8M0 scales s (W,) as 2^(s - 127): exact for 0 too, where it is subnormal; NaN for 255 (MX v1.0, 5.4.1).
inline F power_of_two(I s) {
    I bits = max_int(s << 23, set1_int(0x00400000));
    return as_float(bits | ((s == 255) & 0x00400000));
}
inline F power_of_two(QuarterU scales) { return power_of_two((I)widen(scales)); }
// `count` scales from memory, at most W; the other lanes are 2^-127.
inline F load_e8m0(const uint8_t* p, int count) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    if (count < W) return power_of_two((QuarterU)_mm_maskz_loadu_epi8(__mmask16((1u << count) - 1), p));
#else
    if (count < W) {
        uint8_t padded[W] = {};
        for (int i = 0; i < count; i++) padded[i] = p[i];
        return power_of_two(load_as<QuarterU>(padded));
    }
#endif
    return power_of_two(load_as<QuarterU>(p));
}

// --- MXFP4 codes ----------------------------------------------------------------------------------------------------
// Codes are decoded to twice their value, an integer. A step is W / 4 blocks of 16 bytes, so that a vector holds them
// and every block has four 32-bit lanes. `step_dot` multiplies a step's codes with its activations: lane l of the
// result is the sum over the eight columns whose codes are in lane l. The activations of a step are kStepBytes bytes,
// at `arranged + step * kStepBytes`: `arrange` writes them in an order of the level's own, `load_step` loads them.
// `joined_dot` does the same with the joined blocks at p, of which a step that is not `whole` has only `count`.
// `joined_scales` returns the scales of `count` <= W joined blocks, as `load_e8m0` does.

constexpr int kStepBlocks = W / 4;
constexpr int kStepBytes = kStepBlocks * kArrangedBytes; // of arranged activations

#if defined(__AVX512VBMI__)
// Each 16-bit activation is 256 * high + low with high and low in int8, so that one vpdpbusd multiplies 64 of them. It
// takes one operand unsigned, so 12 is added to the doubled values of the codes; `correction` is -12 times the sum of
// the eight activations of each lane. A step is five vectors of 64 bytes: high bytes of the even columns, low bytes of
// the even columns, high and low of the odd columns, corrections. Even columns are the low codes of the bytes.
struct StepActivations {
    __m512i even_high, even_low, odd_high, odd_low, correction;
};
inline void arrange(const int16_t* q, int groups, int8_t* out) {
    for (int g = 0; g < groups; g++, q += kGroup) {
        int8_t* step = out + size_t(g / kStepBlocks) * kStepBytes + g % kStepBlocks * 16;
        // A dword of `low` or `high` holds an even activation and an odd one; the truncating conversions take bytes.
        const __m512i low = load_as<__m512i>(q);
        const __m512i high = _mm512_srai_epi16(_mm512_add_epi16(low, _mm512_set1_epi16(128)), 8);
        store_as(step, _mm512_cvtepi32_epi8(high));
        store_as(step + 64, _mm512_cvtepi32_epi8(low));
        store_as(step + 128, _mm512_cvtepi32_epi8(_mm512_srli_epi32(high, 16)));
        store_as(step + 192, _mm512_cvtepi32_epi8(_mm512_srli_epi32(low, 16)));
        // Sums of pairs, then of the four dwords of each 128-bit lane: the eight columns of one dword of codes.
        __m512i sums = _mm512_madd_epi16(low, _mm512_set1_epi16(-12));
        sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_CDAB));
        sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, _MM_PERM_BADC));
        const __m512i firsts = _mm512_set_epi32(0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 8, 4, 0);
        store_as(step + 256, _mm512_castsi512_si128(_mm512_permutexvar_epi32(firsts, sums)));
    }
}
inline StepActivations load_step(const int8_t* p) {
    return {load_as<__m512i>(p), load_as<__m512i>(p + 64), load_as<__m512i>(p + 128), load_as<__m512i>(p + 192),
            load_as<__m512i>(p + 256)};
}
inline I step_dot(__m512i codes, const StepActivations& x) {
    // vpermb looks at six bits of an index; the table holds the sixteen values four times, so that the upper two do not
    // matter.
    const __m512i values =
        _mm512_broadcast_i32x4(_mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
    const __m512i even = _mm512_permutexvar_epi8(codes, values);
    const __m512i odd = _mm512_permutexvar_epi8(_mm512_srli_epi16(codes, 4), values);
    const __m512i high =
        _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), even, x.even_high), odd, x.odd_high);
    const __m512i low = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(x.correction, even, x.even_low), odd, x.odd_low);
    return (I)_mm512_add_epi32(_mm512_slli_epi32(high, 8), low);
}
inline I step_dot(const uint8_t* blocks, const StepActivations& x) { return step_dot(load_as<__m512i>(blocks), x); }
// The same if only the first `count` blocks of the step exist; the activations of the others are padding, zero.
inline I part_of_step_dot(const uint8_t* blocks, int count, const StepActivations& x) {
    return step_dot(_mm512_maskz_loadu_epi32(__mmask16((1u << 4 * count) - 1), blocks), x);
}
template <bool whole> inline __m512i load_joined(const uint8_t* p, int count) {
    return whole ? load_as<__m512i>(p) : _mm512_maskz_loadu_epi8((uint64_t(1) << kJoinedBytes * count) - 1, p);
}
template <bool whole> inline I joined_dot(const uint8_t* p, int count, const StepActivations& x) {
    // Four blocks have 68 bytes: indices from 64 on mean the second vector, which has the last four.
    const __m512i places = _mm512_set_epi8(
        67, 66, 65, 64, 63, 62, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40,
        39, 38, 37, 36, 35, 33, 32, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 16, 15, 14, 13, 12, 11, 10,
        9, 8, 7, 6, 5, 4, 3, 2, 1);
    const __m512i first = load_joined<whole>(p, count);
    const __m512i last = whole ? _mm512_castsi128_si512(_mm_cvtsi32_si128(load_as<int32_t>(p + 64))) : first;
    return step_dot(_mm512_permutex2var_epi8(first, places, last), x);
}
inline F joined_scales(const uint8_t* p, int count) {
    // Dword i of every four takes the first byte of block i.
    const __m512i places = _mm512_set4_epi32(51, 34, 17, 0);
    __m512i scales = _mm512_setzero_si512();
    for (int n = 0; n < 4; n++) {
        const int left = count - n * kStepBlocks;
        const uint8_t* step = p + n * kStepBlocks * kJoinedBytes;
        __m512i blocks;
        if (left >= kStepBlocks)
            blocks = load_joined<true>(step, 0);
        else if (left > 0)
            blocks = load_joined<false>(step, left);
        else
            break;
        scales = _mm512_mask_permutexvar_epi8(scales, uint64_t(0x1111) << 16 * n, places, blocks);
    }
    return power_of_two((I)scales);
}
// From the scales of a chunk of W blocks, those of step n, each in the four lanes of its block.
template <int n> inline F step_scales(F scales) {
    const __m512i lanes = _mm512_add_epi32(_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
                                           _mm512_set1_epi32(4 * n));
    return (F)_mm512_permutexvar_ps(lanes, (__m512)scales);
}
#else
// Four planes of 16-bit activations: plane n has columns 4i + n of each block, i from 0 to 7, which are the n-th codes
// of the block's eight 16-bit words. 64 of the 80 bytes per block are used.
struct StepActivations {
    I plane[4];
};
inline void arrange(const int16_t* q, int groups, int8_t* out) {
    for (int g = 0; g < groups; g++)
        for (int n = 0; n < 4; n++) {
            int16_t plane[8];
            for (int i = 0; i < 8; i++) plane[i] = q[g * kGroup + 4 * i + n];
            int8_t* step = out + size_t(g / kStepBlocks) * kStepBytes;
            std::memcpy(step + (n * kStepBlocks + g % kStepBlocks) * sizeof plane, plane, sizeof plane);
        }
}
inline StepActivations load_step(const int8_t* p) {
    return {{load_as<I>(p), load_as<I>(p + 4 * W), load_as<I>(p + 8 * W), load_as<I>(p + 12 * W)}};
}
inline I dot_planes(I w0, I w1, I w2, I w3, const StepActivations& x) {
    const I first = dot_pairs(dot_pairs(I{}, w0, x.plane[0]), w1, x.plane[1]);
    const I second = dot_pairs(dot_pairs(I{}, w2, x.plane[2]), w3, x.plane[3]);
    return first + second;
}
#if defined(__AVX2__)
inline I step_dot(__m256i codes, const StepActivations& x) {
    const __m256i values = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m256i low = _mm256_shuffle_epi8(values, _mm256_and_si256(codes, nibble));
    const __m256i high = _mm256_shuffle_epi8(values, _mm256_and_si256(_mm256_srli_epi16(codes, 4), nibble));
    return dot_planes((I)_mm256_srai_epi16(_mm256_slli_epi16(low, 8), 8),
                      (I)_mm256_srai_epi16(_mm256_slli_epi16(high, 8), 8), (I)_mm256_srai_epi16(low, 8),
                      (I)_mm256_srai_epi16(high, 8), x);
}
inline I step_dot(const uint8_t* blocks, const StepActivations& x) { return step_dot(load_as<__m256i>(blocks), x); }
inline I part_of_step_dot(const uint8_t* blocks, int, const StepActivations& x) {
    return step_dot(_mm256_zextsi128_si256(load_as<__m128i>(blocks)), x);
}
template <bool whole> inline I joined_dot(const uint8_t* p, int count, const StepActivations& x) {
    const __m128i second = whole || count > 1 ? load_as<__m128i>(p + kJoinedBytes + 1) : __m128i{};
    return step_dot(_mm256_set_m128i(second, load_as<__m128i>(p + 1)), x);
}
template <int n> inline F step_scales(F scales) {
    const __m256i lanes = _mm256_setr_epi32(2 * n, 2 * n, 2 * n, 2 * n, 2 * n + 1, 2 * n + 1, 2 * n + 1, 2 * n + 1);
    return (F)_mm256_permutevar8x32_ps((__m256)scales, lanes);
}
#else
// The doubled values of the lowest code of each 16-bit word.
inline I decode_words(S code) {
    const S magnitude = code & 7;
    // 0 1 2 3 4 6 8 12: a true comparison is -1.
    const S value = magnitude - (magnitude > 4) - (magnitude > 5) - 3 * (magnitude > 6);
    const S negative = -((code >> 3) & 1);
    return (I)((value ^ negative) - negative);
}
inline I step_dot(const uint8_t* blocks, const StepActivations& x) {
    const S codes = load_as<S>(blocks);
    return dot_planes(decode_words(codes), decode_words(codes >> 4), decode_words(codes >> 8),
                      decode_words(codes >> 12), x);
}
inline I part_of_step_dot(const uint8_t* blocks, int, const StepActivations& x) { return step_dot(blocks, x); }
template <bool whole> inline I joined_dot(const uint8_t* p, int, const StepActivations& x) {
    return step_dot(p + 1, x);
}
template <int n> inline F step_scales(F scales) { return set1(scales[n]); }
#endif
#endif

#if !defined(__AVX512VBMI__)
inline F joined_scales(const uint8_t* p, int count) {
    // Put together in a register: a vector that is loaded from bytes just stored waits for them.
    uint64_t scales = 0;
    for (int i = 0; i < W && i < count; i++) scales |= uint64_t(p[i * kJoinedBytes]) << 8 * i;
    QuarterU bytes;
    std::memcpy(&bytes, &scales, sizeof bytes);
    return power_of_two(bytes);
}
#endif

// exp(x) for x <= 88, with the polynomial of Cephes on [-ln 2 / 2, ln 2 / 2]: relative error 2e-7; 0 below -87; NaN
// stays.
inline F exp(F x) {
    F clamped = max(set1(-87.0f), x); // in this order NaN remains
    F n = clamped * 1.44269504088896341f;
    const F magic = set1(12582912.0f); // 1.5 * 2^23: adding it rounds to an integer
    n = (n + magic) - magic;
    F r = clamped - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    F p = set1(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    I exponent = __builtin_convertvector(n, I) + 127;
    F result = p * as_float(exponent << 23);
    return x < -87.0f ? F{} : result;
}

} // namespace gptoss::GPTOSS_ISA
