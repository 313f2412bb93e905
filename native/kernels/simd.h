// Sixteen floats at a time on every instruction set. Kernels use these names only.
// Reductions add in one fixed tree, so a result depends on the instruction set and on nothing else.
#if defined(FARTHING_avx512) || defined(FARTHING_avx2)
#include <immintrin.h>
#endif

constexpr int kLanes = 16;

#if defined(FARTHING_avx512)

using Vec = __m512;
static inline Vec zero() { return _mm512_setzero_ps(); }
static inline Vec splat(float x) { return _mm512_set1_ps(x); }
static inline Vec load(const float* p) { return _mm512_loadu_ps(p); }
static inline void store(float* p, Vec v) { _mm512_storeu_ps(p, v); }
static inline __mmask16 first_lanes(int n) { return static_cast<__mmask16>((1u << n) - 1); }
static inline Vec load_some(const float* p, int n) { return _mm512_maskz_loadu_ps(first_lanes(n), p); }
static inline void store_some(float* p, Vec v, int n) { _mm512_mask_storeu_ps(p, first_lanes(n), v); }
static inline Vec add(Vec a, Vec b) { return _mm512_add_ps(a, b); }
static inline Vec sub(Vec a, Vec b) { return _mm512_sub_ps(a, b); }
static inline Vec mul(Vec a, Vec b) { return _mm512_mul_ps(a, b); }
static inline Vec div(Vec a, Vec b) { return _mm512_div_ps(a, b); }
static inline Vec max(Vec a, Vec b) { return _mm512_max_ps(a, b); }
static inline Vec min(Vec a, Vec b) { return _mm512_min_ps(a, b); }
static inline Vec fma(Vec a, Vec b, Vec c) { return _mm512_fmadd_ps(a, b, c); }  // a * b + c
static inline Vec round_even(Vec a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline Vec scale_by_power(Vec a, Vec n) { return _mm512_scalef_ps(a, n); }  // a * 2^n, n integral
// bf16 memory to floats and back (round to nearest even)
static inline Vec load_bf16(const uint16_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static inline void store_bf16(uint16_t* p, Vec v) {
  _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v));
}

#elif defined(FARTHING_avx2)

struct Vec {
  __m256 lo, hi;
};
static inline Vec zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
static inline Vec splat(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
static inline Vec load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
static inline void store(float* p, Vec v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
static inline Vec load_some(const float* p, int n) {
  float padded[kLanes] = {};
  memcpy(padded, p, n * sizeof(float));
  return load(padded);
}
static inline void store_some(float* p, Vec v, int n) {
  float all[kLanes];
  store(all, v);
  memcpy(p, all, n * sizeof(float));
}
#define EACH_HALF(op) {op(a.lo, b.lo), op(a.hi, b.hi)}
static inline Vec add(Vec a, Vec b) { return EACH_HALF(_mm256_add_ps); }
static inline Vec sub(Vec a, Vec b) { return EACH_HALF(_mm256_sub_ps); }
static inline Vec mul(Vec a, Vec b) { return EACH_HALF(_mm256_mul_ps); }
static inline Vec div(Vec a, Vec b) { return EACH_HALF(_mm256_div_ps); }
static inline Vec max(Vec a, Vec b) { return EACH_HALF(_mm256_max_ps); }
static inline Vec min(Vec a, Vec b) { return EACH_HALF(_mm256_min_ps); }
#undef EACH_HALF
static inline Vec fma(Vec a, Vec b, Vec c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
static inline Vec round_even(Vec a) {
  constexpr int mode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, mode), _mm256_round_ps(a.hi, mode)};
}
static inline __m256 scale_by_power_half(__m256 a, __m256 n) {
  // two factors, so that exponents from -252 to 254 stay finite on the way
  const __m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1);
  const auto power = [](__m256i e) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
  };
  return _mm256_mul_ps(_mm256_mul_ps(a, power(half)), power(_mm256_sub_epi32(whole, half)));
}
static inline Vec scale_by_power(Vec a, Vec n) { return {scale_by_power_half(a.lo, n.lo), scale_by_power_half(a.hi, n.hi)}; }
static inline Vec load_bf16(const uint16_t* p) {
  const auto widen = [](__m128i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16)); };
  return {widen(_mm_loadu_si128((const __m128i*)p)), widen(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
static inline __m256i bf16_bits(__m256 x) {
  const __m256i bits = _mm256_castps_si256(x), odd = _mm256_and_si256(_mm256_srli_epi32(bits, 16), _mm256_set1_epi32(1));
  const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(x, x, _CMP_UNORD_Q));
  return _mm256_blendv_epi8(rounded, _mm256_set1_epi32(0x7fc0), nan);
}
static inline void store_bf16(uint16_t* p, Vec v) {
  const __m256i packed = _mm256_packus_epi32(bf16_bits(v.lo), bf16_bits(v.hi));
  _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(packed, 0xd8));
}

#else

struct Vec {
  float lane[kLanes];
};
#define EACH_LANE(expression)                                \
  Vec r;                                                     \
  for (int i = 0; i < kLanes; ++i) r.lane[i] = (expression); \
  return r
static inline Vec splat(float x) { EACH_LANE(x); }
static inline Vec zero() { return splat(0); }
static inline Vec load(const float* p) { EACH_LANE(p[i]); }
static inline void store(float* p, Vec v) { memcpy(p, v.lane, sizeof v.lane); }
static inline Vec load_some(const float* p, int n) { EACH_LANE(i < n ? p[i] : 0.0f); }
static inline void store_some(float* p, Vec v, int n) { memcpy(p, v.lane, n * sizeof(float)); }
static inline Vec add(Vec a, Vec b) { EACH_LANE(a.lane[i] + b.lane[i]); }
static inline Vec sub(Vec a, Vec b) { EACH_LANE(a.lane[i] - b.lane[i]); }
static inline Vec mul(Vec a, Vec b) { EACH_LANE(a.lane[i] * b.lane[i]); }
static inline Vec div(Vec a, Vec b) { EACH_LANE(a.lane[i] / b.lane[i]); }
static inline Vec max(Vec a, Vec b) { EACH_LANE(a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline Vec min(Vec a, Vec b) { EACH_LANE(a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i]); }
static inline Vec fma(Vec a, Vec b, Vec c) { EACH_LANE(a.lane[i] * b.lane[i] + c.lane[i]); }
static inline Vec round_even(Vec a) { EACH_LANE(std::nearbyint(a.lane[i])); }
static inline Vec scale_by_power(Vec a, Vec n) { EACH_LANE(std::ldexp(a.lane[i], static_cast<int>(n.lane[i]))); }
static inline float bf16_to_float(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float x;
  memcpy(&x, &wide, 4);
  return x;
}
static inline uint16_t float_to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
static inline Vec load_bf16(const uint16_t* p) { EACH_LANE(bf16_to_float(p[i])); }
static inline void store_bf16(uint16_t* p, Vec v) {
  for (int i = 0; i < kLanes; ++i) p[i] = float_to_bf16(v.lane[i]);
}
#undef EACH_LANE

#endif

#if defined(FARTHING_avx512)
static inline float lane_sum(Vec v) {  // lanes 8, 4, 2 and 1 apart are added in turn, as below
  const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
#else
static inline float lane_sum(Vec v) {
  float x[kLanes];
  store(x, v);
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int i = 0; i < width; ++i) x[i] += x[i + width];
  return x[0];
}
#endif

#if defined(FARTHING_avx512)
static inline float lane_max(Vec v) { return _mm512_reduce_max_ps(v); }
#else
static inline float lane_max(Vec v) {
  float x[kLanes];
  store(x, v);
  float most = x[0];
  for (int i = 1; i < kLanes; ++i) most = x[i] > most ? x[i] : most;
  return most;
}
#endif

// e^x within 2 units in the last place: x = n ln 2 + r, |r| <= ln 2 / 2, and a polynomial in r.
static inline Vec exp(Vec x) {
  x = min(max(x, splat(-87.3f)), splat(88.3f));
  const Vec n = round_even(mul(x, splat(1.44269504f)));
  Vec r = fma(n, splat(-0.693359375f), x);
  r = fma(n, splat(2.12194440e-4f), r);
  Vec p = splat(1.9875691500e-4f);
  p = fma(p, r, splat(1.3981999507e-3f));
  p = fma(p, r, splat(8.3334519073e-3f));
  p = fma(p, r, splat(4.1665795894e-2f));
  p = fma(p, r, splat(1.6666665459e-1f));
  p = fma(p, r, splat(5.0000001201e-1f));
  p = add(fma(mul(p, r), r, r), splat(1.0f));
  return scale_by_power(p, n);
}

static inline Vec sigmoid(Vec x) { return div(splat(1.0f), add(splat(1.0f), exp(sub(zero(), x)))); }

#if defined(FARTHING_avx512)
static inline Vec sqrt(Vec a) { return _mm512_sqrt_ps(a); }
#elif defined(FARTHING_avx2)
static inline Vec sqrt(Vec a) { return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)}; }
#else
static inline Vec sqrt(Vec a) {
  for (float& x : a.lane) x = std::sqrt(x);
  return a;
}
#endif

// Two bf16 numbers in a word, even index in the low half, and sixteen such words.
using Pair = uint32_t __attribute__((may_alias));
#if defined(FARTHING_avx512)
constexpr bool kPairProducts = true;
using PairVec = __m512i;
static inline PairVec load(const Pair* p) { return _mm512_loadu_si512(p); }
static inline void store(Pair* p, PairVec v) { _mm512_storeu_si512(p, v); }
static inline PairVec splat(Pair x) { return _mm512_set1_epi32(static_cast<int>(x)); }
// a.even * b.even + a.odd * b.odd + c, subnormal numbers taken as zero
static inline Vec fma(PairVec a, PairVec b, Vec c) { return _mm512_dpbf16_ps(c, (__m512bh)a, (__m512bh)b); }
static inline PairVec to_pairs(Vec even, Vec odd) {
  const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
  const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}
static inline Vec even_floats(PairVec v) { return _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)); }
static inline Vec odd_floats(PairVec v) {
  return _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(static_cast<int>(0xffff0000))));
}
// 32 floats in order
static inline PairVec pair_up(Vec first, Vec second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }
static inline PairVec zip_bf16(const uint16_t* even, const uint16_t* odd) {
  const auto widen = [](const uint16_t* p) { return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)); };
  return _mm512_or_si512(widen(even), _mm512_slli_epi32(widen(odd), 16));
}
// The same for 32 of each: the first 16 in `low`.
static inline void zip_bf16(const uint16_t* even, const uint16_t* odd, PairVec& low, PairVec& high) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m512i a = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(even));
  const __m512i b = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(odd));
  low = _mm512_unpacklo_epi16(a, b);
  high = _mm512_unpackhi_epi16(a, b);
}
#elif defined(FARTHING_avx2)
constexpr bool kPairProducts = false;  // slower than products of floats; here so that the same code compiles
struct PairVec {
  __m256i lo, hi;
};
static inline PairVec load(const Pair* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
static inline void store(Pair* p, PairVec v) {
  _mm256_storeu_si256((__m256i*)p, v.lo);
  _mm256_storeu_si256((__m256i*)(p + 8), v.hi);
}
static inline PairVec splat(Pair x) { return {_mm256_set1_epi32(static_cast<int>(x)), _mm256_set1_epi32(static_cast<int>(x))}; }
static inline __m256i zip_words(__m256i low, __m256i high) { return _mm256_or_si256(low, _mm256_slli_epi32(high, 16)); }
static inline PairVec to_pairs(Vec even, Vec odd) {
  return {zip_words(bf16_bits(even.lo), bf16_bits(odd.lo)), zip_words(bf16_bits(even.hi), bf16_bits(odd.hi))};
}
static inline PairVec pair_up(Vec first, Vec second) {
  const auto pack = [](Vec v) { return _mm256_permute4x64_epi64(_mm256_packus_epi32(bf16_bits(v.lo), bf16_bits(v.hi)), 0xd8); };
  return {pack(first), pack(second)};
}
static inline PairVec zip_bf16(const uint16_t* even, const uint16_t* odd) {
  const auto widen = [](const uint16_t* p) { return _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)); };
  return {zip_words(widen(even), widen(odd)), zip_words(widen(even + 8), widen(odd + 8))};
}
static inline Vec even_floats(PairVec v) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(v.lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(v.hi, 16))};
}
static inline Vec odd_floats(PairVec v) {
  const __m256i top = _mm256_set1_epi32(static_cast<int>(0xffff0000));
  return {_mm256_castsi256_ps(_mm256_and_si256(v.lo, top)), _mm256_castsi256_ps(_mm256_and_si256(v.hi, top))};
}
#else
constexpr bool kPairProducts = false;
struct PairVec {
  uint32_t lane[kLanes];
};
static inline PairVec load(const Pair* p) {
  PairVec v;
  memcpy(v.lane, p, sizeof v.lane);
  return v;
}
static inline void store(Pair* p, PairVec v) { memcpy(p, v.lane, sizeof v.lane); }
static inline PairVec splat(Pair x) {
  PairVec v;
  for (uint32_t& lane : v.lane) lane = x;
  return v;
}
static inline PairVec zip_bf16(const uint16_t* even, const uint16_t* odd) {
  PairVec v;
  for (int i = 0; i < kLanes; ++i) v.lane[i] = even[i] | static_cast<uint32_t>(odd[i]) << 16;
  return v;
}
static inline PairVec to_pairs(Vec even, Vec odd) {
  uint16_t low[kLanes], high[kLanes];
  store_bf16(low, even);
  store_bf16(high, odd);
  return zip_bf16(low, high);
}
static inline PairVec pair_up(Vec first, Vec second) {
  uint16_t bits[2 * kLanes];
  store_bf16(bits, first);
  store_bf16(bits + kLanes, second);
  PairVec v;
  memcpy(v.lane, bits, sizeof bits);
  return v;
}
static inline Vec even_floats(PairVec v) {
  for (uint32_t& lane : v.lane) lane <<= 16;
  Vec x;
  memcpy(x.lane, v.lane, sizeof x.lane);
  return x;
}
static inline Vec odd_floats(PairVec v) {
  for (uint32_t& lane : v.lane) lane &= 0xffff0000u;
  Vec x;
  memcpy(x.lane, v.lane, sizeof x.lane);
  return x;
}
#endif
#if !defined(FARTHING_avx512)
static inline Vec fma(PairVec a, PairVec b, Vec c) {
  return fma(even_floats(a), even_floats(b), fma(odd_floats(a), odd_floats(b), c));
}
#endif

// The first eight lanes alone, for products with few columns.
#if defined(FARTHING_avx512) || defined(FARTHING_avx2)
using HalfVec = __m256;
static inline HalfVec splat_half(float x) { return _mm256_set1_ps(x); }
static inline HalfVec fma(HalfVec a, HalfVec b, HalfVec c) { return _mm256_fmadd_ps(a, b, c); }
static inline void store_half(float* p, HalfVec v) { _mm256_storeu_ps(p, v); }
#endif
#if defined(FARTHING_avx512)
static inline HalfVec low_half(Vec v) {
  HalfVec low;
  memcpy(&low, &v, sizeof low);  // no instruction; the cast that exists warns
  return low;
}
static inline __m256i low_half(PairVec v) {
  __m256i low;
  memcpy(&low, &v, sizeof low);
  return low;
}
static inline __m256i splat_half(Pair x) { return _mm256_set1_epi32(static_cast<int>(x)); }
static inline HalfVec fma(__m256i a, __m256i b, HalfVec c) { return _mm256_dpbf16_ps(c, (__m256bh)a, (__m256bh)b); }
#elif defined(FARTHING_avx2)
static inline HalfVec low_half(Vec v) { return v.lo; }
#else
using HalfVec = Vec;  // nothing to gain
static inline HalfVec low_half(Vec v) { return v; }
static inline HalfVec splat_half(float x) { return splat(x); }
static inline void store_half(float* p, HalfVec v) { store(p, v); }
#endif

// rows[i][j] <-> rows[j][i]
#if defined(FARTHING_avx512)
static inline void transpose(Vec (&rows)[kLanes]) {
  Vec t[kLanes];
  for (int i = 0; i < kLanes; i += 4) {  // 4 x 4 squares within 128 bits
    const Vec a = _mm512_unpacklo_ps(rows[i], rows[i + 1]), b = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
    const Vec c = _mm512_unpacklo_ps(rows[i + 2], rows[i + 3]), d = _mm512_unpackhi_ps(rows[i + 2], rows[i + 3]);
    t[i] = _mm512_shuffle_ps(a, c, 0x44);
    t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
    t[i + 2] = _mm512_shuffle_ps(b, d, 0x44);
    t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
  }
  for (int i = 0; i < 4; ++i) {  // then the squares of 128 bits
    const Vec a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
    const Vec c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88), d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
    rows[i] = _mm512_shuffle_f32x4(a, c, 0x88);
    rows[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88);
    rows[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
    rows[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
  }
}
#else
static inline void transpose(Vec (&rows)[kLanes]) {
  float from[kLanes][kLanes], to[kLanes][kLanes];
  for (int i = 0; i < kLanes; ++i) store(from[i], rows[i]);
  for (int i = 0; i < kLanes; ++i)
    for (int j = 0; j < kLanes; ++j) to[j][i] = from[i][j];
  for (int i = 0; i < kLanes; ++i) rows[i] = load(to[i]);
}
#endif

// The same for words of any kind.
static inline void transpose(PairVec (&rows)[kLanes]) {
  Vec words[kLanes];
  memcpy(words, rows, sizeof words);
  transpose(words);
  memcpy(rows, words, sizeof words);
}
