// The one microkernel under every matrix product: a tile of rows times packed panels.
//
// Operand a: activations, one element per pair of neighbouring k (PairMode: two bf16 in 32 bits) or per k
// (FloatMode: f32, rounded to bf16 first where the compute mode asks for it). Operand b: packed panels (pack.h).
// Each output is one chain of sums over k in order, whatever the shape of the tile.

// The tile that fills the registers, and up to how many rows four panels are read side by side.
#if defined(FARTHING_avx512)
constexpr int kProductRows = 12, kProductPanels = 2, kStreamRows = 4;
#else
constexpr int kProductRows = 4, kProductPanels = 1, kStreamRows = 1;
#endif

// One pair of k for 16 outputs, widened to f32.
struct FloatPair {
  Vec even, odd;
};
static inline FloatPair widen(PairVec pairs) { return {even_floats(pairs), odd_floats(pairs)}; }

static inline Vec round_to_bf16(Vec v) { return odd_floats(to_pairs(v, v)); }

// Activations as f32; weights of any format, widened.
struct FloatMode {
  using Element = float;
  using Weights = FloatPair;
  static constexpr int kPerPair = 2;
  static constexpr DType kScratchFormat = DType::PackedF32;  // of panels made on the way

  static inline Weights weights(PairVec pairs) { return widen(pairs); }
  static inline uint8_t* put(uint8_t* to, const Weights& w) {
    auto* floats = reinterpret_cast<float*>(to);
    store(floats, w.even);
    store(floats + kLanes, w.odd);
    return to + 2 * kLanes * sizeof(float);
  }
  struct Splat {
    Vec even, odd;
  };
  static inline Splat activation(const float* a, int64_t step) { return {splat(a[0]), splat(a[step])}; }
  static inline Vec dot(Vec sum, const Splat& x, const Weights& w) { return fma(x.odd, w.odd, fma(x.even, w.even, sum)); }

  // k values of a row, rounded to bf16 if asked, then zeros up to `padded`.
  static void take_row(float* to, const float* row, int k, int padded, bool round) {
    if (round) each_vec(0, k, [&](int c, int lanes) { store_up_to(to + c, round_to_bf16(load_up_to(row + c, lanes)), lanes); });
    else memcpy(to, row, k * sizeof(float));
    for (int c = k; c < padded; ++c) to[c] = 0;
  }

  // Two rows of up to 16 columns; the second lies `apart` elements after the first.
  static void take_pair(float* to, int64_t apart, const float* even, const float* odd, int lanes, bool round) {
    const Vec a = load_up_to(even, lanes), b = odd ? load_up_to(odd, lanes) : zero();
    store(to, round ? round_to_bf16(a) : a);
    store(to + apart, round ? round_to_bf16(b) : b);
  }
};

// Activations as pairs of bf16, for processors that multiply a pair and add both products to an f32.
struct PairMode {
  using Element = Pair;
  using Weights = PairVec;
  static constexpr int kPerPair = 1;
  static constexpr DType kScratchFormat = DType::PackedBF16;

  static inline Weights weights(PairVec pairs) { return pairs; }
  static inline uint8_t* put(uint8_t* to, const Weights& w) {
    store(reinterpret_cast<Pair*>(to), w);
    return to + kLanes * sizeof(Pair);
  }
  static inline PairVec activation(const Pair* a, int64_t) { return splat(*a); }
  static inline Vec dot(Vec sum, PairVec x, PairVec w) { return fma(x, w, sum); }

  static void take_row(Pair* to, const float* row, int k, int padded, bool) {
    int c = 0;
    for (; c + 2 * kLanes <= k; c += 2 * kLanes) store(to + c / 2, pair_up(load(row + c), load(row + c + kLanes)));
    if (c == padded) return;
    const int left = k - c;
    Pair last[kLanes];
    store(last, pair_up(load_some(row + c, left < kLanes ? left : kLanes),
                        left > kLanes ? load_some(row + c + kLanes, left - kLanes) : zero()));
    memcpy(to + c / 2, last, (padded - c) / 2 * sizeof(Pair));
  }

  // Two rows of up to 16 columns as 16 pairs: (a0, b0), (a1, b1), …
  static void take_pair(Pair* to, int64_t, const float* even, const float* odd, int lanes, bool) {
    store(to, to_pairs(load_up_to(even, lanes), odd ? load_up_to(odd, lanes) : zero()));
  }
};

// Weights of one pair and the following kPairsAtOnce - 1.
template <class Mode, DType format>
struct Panel {
  static constexpr int kPairsAtOnce = format == DType::PackedFP4 ? 4 : format == DType::PackedFP8 ? 2 : 1;
  typename Mode::Weights weights[kPairsAtOnce];

  // Bytes from the start of a panel.
  static constexpr int64_t offset(int pair) {
    return format == DType::PackedFP4 ? static_cast<int64_t>(pair) * kLanes : static_cast<int64_t>(pair) * 2 * kLanes * bytes_per_value(format);
  }

  inline explicit Panel(const uint8_t* p) {
    if constexpr (format == DType::PackedFP4) {
      const Octet octet = load_octet(p);
      weights[0] = Mode::weights(octet.first.first);
      weights[1] = Mode::weights(octet.first.second);
      weights[2] = Mode::weights(octet.second.first);
      weights[3] = Mode::weights(octet.second.second);
    } else if constexpr (format == DType::PackedFP8) {
      const Quad quad = load_quad(p);
      weights[0] = Mode::weights(quad.first);
      weights[1] = Mode::weights(quad.second);
    } else if constexpr (format == DType::PackedBF16) {
      weights[0] = Mode::weights(load(reinterpret_cast<const Pair*>(p)));
    } else {
      const auto* floats = reinterpret_cast<const float*>(p);
      weights[0] = {load(floats), load(floats + kLanes)};
    }
  }

  // Stores the weights as the scratch format of the mode, one pair after the other.
  void put(uint8_t* to) const {
    for (const auto& w : weights) to = Mode::put(to, w);
  }
};

constexpr int kFewRows = 4;        // up to here weights are decoded in registers, above into scratch for all rows
constexpr int kBytesAhead = 1024;  // of a panel that is read once, asked for before they are needed

// sums[m][j] continues over pairs [first, last) of panel j. Element (m, pair) of a lies at a[m * row + pair * depth].
// FP8: first and last are even; FP4: multiples of four.
template <class Mode, DType format, int ROWS, int PANELS>
static inline void tile(const typename Mode::Element* a, int64_t row, int64_t depth, const uint8_t* const* panels, int first,
                        int last, Vec (&sums)[ROWS][PANELS]) {
  using From = Panel<Mode, format>;
  for (int pair = first; pair < last; pair += From::kPairsAtOnce) {
    const auto step = [&]<int... J>(std::integer_sequence<int, J...>) {
      if constexpr (ROWS <= kFewRows) (__builtin_prefetch(panels[J] + From::offset(pair) + kBytesAhead), ...);
      const From from[PANELS] = {From(panels[J] + From::offset(pair))...};
#pragma GCC unroll 4
      for (int p = 0; p < From::kPairsAtOnce; ++p) {
#pragma GCC unroll 16
        for (int m = 0; m < ROWS; ++m) {
          const auto x = Mode::activation(a + m * row + static_cast<int64_t>(pair + p) * Mode::kPerPair * depth, depth);
#pragma GCC unroll 16
          for (int j = 0; j < PANELS; ++j) sums[m][j] = Mode::dot(sums[m][j], x, from[j].weights[p]);
        }
      }
    };
    step(std::make_integer_sequence<int, PANELS>{});
  }
}

// Calls body(integral_constant<ROWS>, first row) until `rows` rows are covered by tiles, the last of which may reach
// beyond them, by at most kTileOverhang rows.
constexpr int kTileOverhang = 3;
template <int MOST, class Body>
static inline void each_tile(int rows, Body body) {
  int m = 0;
  for (; m + MOST <= rows; m += MOST) body(std::integral_constant<int, MOST>{}, m);
  const int left = rows - m;
  if (left == 0) return;
  const auto covers = [&](auto count) {
    if constexpr (count.value < MOST) {
      if (left > count.value) return false;
      body(count, m);
      return true;
    } else {
      return false;
    }
  };
  if (covers(std::integral_constant<int, 1>{}) || covers(std::integral_constant<int, 2>{}) ||
      covers(std::integral_constant<int, 4>{}) || covers(std::integral_constant<int, 8>{}))
    return;
  body(std::integral_constant<int, MOST>{}, m);
}
