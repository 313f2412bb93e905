// The one microkernel under every matrix product: a tile of rows times packed panels.
//
// Operand a: activations, one element per pair of neighbouring k (PairMode: two bf16 in 32 bits) or per k
// (FloatMode: f32, rounded to bf16 first where the compute mode asks for it). Operand b: packed panels (pack.h).
// Each output is one chain of sums over k in order, whatever the shape of the tile.

#if defined(FARTHING_avx512)
constexpr int kProductRows = 12, kProductPanels = 2;
#elif defined(FARTHING_avx2)
constexpr int kProductRows = 3, kProductPanels = 1;
#else
constexpr int kProductRows = 4, kProductPanels = 1;
#endif

// One pair of k for 16 outputs, widened to f32.
struct FloatPair {
  Vec even, odd;
};

// e4m3 to bf16, exactly. Subnormals (magnitude below 8) become normal bf16 numbers.
static constexpr uint16_t kSubnormals[8] = {0x0000, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60};

static inline uint16_t fp8_to_bf16(uint8_t byte) {
  const uint16_t magnitude = byte & 0x7f, sign = (byte & 0x80) << 8;
  if (magnitude == 0x7f) return sign | 0x7fc0;
  return sign | (magnitude < 8 ? kSubnormals[magnitude] : (magnitude << 4) + 0x3C00);
}

#if defined(FARTHING_avx512)

using BitPairs = __m512i;  // 16 outputs x 2 bf16
static inline BitPairs bits_of_bf16(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline BitPairs bits_of_fp8(const uint8_t* p) {
  const __m512i bytes = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p));
  const __m512i magnitude = _mm512_and_si512(bytes, _mm512_set1_epi16(0x7f));
  const __m512i sign = _mm512_slli_epi16(_mm512_and_si512(bytes, _mm512_set1_epi16(0x80)), 8);
  const __m512i normal = _mm512_add_epi16(_mm512_slli_epi16(magnitude, 4), _mm512_set1_epi16(0x3C00));
  const __m512i table = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)kSubnormals));
  const __mmask32 small = _mm512_cmplt_epu16_mask(magnitude, _mm512_set1_epi16(8));
  return _mm512_or_si512(sign, _mm512_mask_permutexvar_epi16(normal, small, magnitude, table));
}
static inline FloatPair widen(BitPairs bits) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(bits, _mm512_set1_epi32(0xffff0000)))};
}
static inline void store_bits(uint8_t* p, BitPairs bits) { _mm512_storeu_si512(p, bits); }

#elif defined(FARTHING_avx2)

struct BitPairs {
  __m256i lo, hi;
};
static inline BitPairs bits_of_bf16(const uint8_t* p) {
  return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 32))};
}
static inline __m256i bits_of_fp8_half(const uint8_t* p) {
  const __m256i bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p));
  const __m256i magnitude = _mm256_and_si256(bytes, _mm256_set1_epi16(0x7f));
  const __m256i sign = _mm256_slli_epi16(_mm256_and_si256(bytes, _mm256_set1_epi16(0x80)), 8);
  const __m256i normal = _mm256_add_epi16(_mm256_slli_epi16(magnitude, 4), _mm256_set1_epi16(0x3C00));
  const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i*)kSubnormals));
  // byte indices 2m and 2m + 1 of each 16-bit entry
  const __m256i index = _mm256_add_epi16(_mm256_mullo_epi16(magnitude, _mm256_set1_epi16(0x0202)), _mm256_set1_epi16(0x0100));
  const __m256i small = _mm256_cmpgt_epi16(_mm256_set1_epi16(8), magnitude);
  return _mm256_or_si256(sign, _mm256_blendv_epi8(normal, _mm256_shuffle_epi8(table, index), small));
}
static inline BitPairs bits_of_fp8(const uint8_t* p) { return {bits_of_fp8_half(p), bits_of_fp8_half(p + 16)}; }
static inline FloatPair widen(BitPairs bits) {
  const __m256i top = _mm256_set1_epi32(0xffff0000);
  const auto even = [](__m256i x) { return _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)); };
  const auto odd = [&](__m256i x) { return _mm256_castsi256_ps(_mm256_and_si256(x, top)); };
  return {{even(bits.lo), even(bits.hi)}, {odd(bits.lo), odd(bits.hi)}};
}
static inline void store_bits(uint8_t* p, BitPairs bits) {
  _mm256_storeu_si256((__m256i*)p, bits.lo);
  _mm256_storeu_si256((__m256i*)(p + 32), bits.hi);
}

#else

struct BitPairs {
  uint16_t bits[2 * kLanes];
};
static inline BitPairs bits_of_bf16(const uint8_t* p) {
  BitPairs r;
  memcpy(r.bits, p, sizeof r.bits);
  return r;
}
static inline BitPairs bits_of_fp8(const uint8_t* p) {
  BitPairs r;
  for (int i = 0; i < 2 * kLanes; ++i) r.bits[i] = fp8_to_bf16(p[i]);
  return r;
}
static inline FloatPair widen(BitPairs pairs) {
  FloatPair r;
  for (int i = 0; i < kLanes; ++i) {
    r.even.lane[i] = bf16_to_float(pairs.bits[2 * i]);
    r.odd.lane[i] = bf16_to_float(pairs.bits[2 * i + 1]);
  }
  return r;
}
static inline void store_bits(uint8_t* p, BitPairs pairs) { memcpy(p, pairs.bits, sizeof pairs.bits); }

#endif

static inline Vec round_to_bf16(Vec v) {
  uint16_t bits[kLanes];
  store_bf16(bits, v);
  return load_bf16(bits);
}

// Activations as f32; weights of any format, widened.
struct FloatMode {
  using Element = float;
  static constexpr int kPerPair = 2;

  template <DType format>
  static inline FloatPair weights(const uint8_t* panel, int pair) {
    if constexpr (format == DType::PackedF32) {
      const float* p = reinterpret_cast<const float*>(panel) + pair * 2 * kLanes;
      return {load(p), load(p + kLanes)};
    } else if constexpr (format == DType::PackedBF16) {
      return widen(bits_of_bf16(panel + pair * 4 * kLanes));
    } else {
      return widen(bits_of_fp8(panel + pair * 2 * kLanes));
    }
  }
  struct Splat {
    Vec even, odd;
  };
  static inline Splat activation(const float* a, int64_t step) { return {splat(a[0]), splat(a[step])}; }
  static inline Vec dot(Vec sum, const Splat& x, const FloatPair& w) { return fma(x.odd, w.odd, fma(x.even, w.even, sum)); }

  // k values of a row, zero to an even number, rounded to bf16 if asked.
  static void take_row(float* to, const float* row, int k, bool round) {
    if (round) each_vec(0, k, [&](int c, int lanes) { store_up_to(to + c, round_to_bf16(load_up_to(row + c, lanes)), lanes); });
    else memcpy(to, row, k * sizeof(float));
    if (k & 1) to[k] = 0;
  }

  // Two rows of up to 16 columns; the second lies `apart` elements after the first.
  static void take_pair(uint8_t* to, int64_t apart, const float* even, const float* odd, int lanes, bool round) {
    const Vec a = load_up_to(even, lanes), b = odd ? load_up_to(odd, lanes) : zero();
    store(reinterpret_cast<float*>(to), round ? round_to_bf16(a) : a);
    store(reinterpret_cast<float*>(to) + apart, round ? round_to_bf16(b) : b);
  }
};

#if defined(FARTHING_avx512)
constexpr bool kPairDot = true;

// Activations as pairs of bf16; the processor multiplies a pair and adds both products to an f32.
struct PairMode {
  using Element = uint32_t;
  static constexpr int kPerPair = 1;

  template <DType format>
  static inline BitPairs weights(const uint8_t* panel, int pair) {
    if constexpr (format == DType::PackedBF16) return bits_of_bf16(panel + pair * 4 * kLanes);
    else return bits_of_fp8(panel + pair * 2 * kLanes);
  }
  static inline __m512i activation(const uint32_t* a, int64_t) { return _mm512_set1_epi32(*a); }
  static inline Vec dot(Vec sum, __m512i x, BitPairs w) { return _mm512_dpbf16_ps(sum, (__m512bh)x, (__m512bh)w); }

  static void take_row(uint32_t* to, const float* row, int k, bool) {
    auto* bits = reinterpret_cast<uint16_t*>(to);
    int c = 0;
    for (; c + kLanes <= k; c += kLanes) store_bf16(bits + c, load(row + c));
    if (c < k) {
      uint16_t last[kLanes];
      store_bf16(last, load_some(row + c, k - c));
      memcpy(bits + c, last, ((k - c + 1) & ~1) * sizeof(uint16_t));
    }
  }

  // Two rows of up to 16 columns as 16 pairs: (a0, b0), (a1, b1), …
  static void take_pair(uint8_t* to, int64_t, const float* even, const float* odd, int lanes, bool) {
    const Vec a = load_up_to(even, lanes), b = odd ? load_up_to(odd, lanes) : zero();
    const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(a));
    const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(b));
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
  }
};
#else
constexpr bool kPairDot = false;
using PairMode = FloatMode;
#endif

// sums[m][j] continues over pairs [first, last) of panel j. Element (m, pair) of a lies at a[m * row + pair * depth].
template <class Mode, DType format, int ROWS, int PANELS>
static inline void tile(const typename Mode::Element* a, int64_t row, int64_t depth, const uint8_t* const* panels, int first,
                        int last, Vec (&sums)[ROWS][PANELS]) {
  for (int pair = first; pair < last; ++pair) {
    decltype(Mode::template weights<format>(panels[0], pair)) w[PANELS];
#pragma GCC unroll 16
    for (int j = 0; j < PANELS; ++j) w[j] = Mode::template weights<format>(panels[j], pair);
#pragma GCC unroll 16
    for (int m = 0; m < ROWS; ++m) {
      const auto x = Mode::activation(a + m * row + static_cast<int64_t>(pair) * Mode::kPerPair * depth, depth);
#pragma GCC unroll 16
      for (int j = 0; j < PANELS; ++j) sums[m][j] = Mode::dot(sums[m][j], x, w[j]);
    }
  }
}

// Calls body(integral_constant<ROWS>, first row) until `rows` rows are covered by tiles.
template <int MOST, class Body>
static inline void each_tile(int rows, Body body) {
  int m = 0;
  for (; m + MOST <= rows; m += MOST) body(std::integral_constant<int, MOST>{}, m);
  const auto rest = [&](auto count) {
    if constexpr (count.value < MOST) {
      for (; m + count.value <= rows; m += count.value) body(count, m);
    }
  };
  rest(std::integral_constant<int, 8>{});
  rest(std::integral_constant<int, 4>{});
  rest(std::integral_constant<int, 2>{});
  rest(std::integral_constant<int, 1>{});
}
