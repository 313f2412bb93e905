// The products of attention_tile.h on matrix tiles (tiles.h), for operands of bf16 pairs. Lanes stay apart in them too.

// Scores over whole steps of 16 pairs: rows of x are rows of a tile, lanes of the columns its outputs.
template <class X>
static inline void tile_scores(float* out, int rows, X x, int64_t stride, const Pair* columns, int width, int steps) {
  const auto some = [&]<int ROWS, int COLUMNS>(std::integral_constant<int, ROWS>, std::integral_constant<int, COLUMNS>, int n, int m) {
    const Pair* a = x(n);
    const int64_t tile = ROWS == 2 ? x(n + kTileRows16) - a : 0;
    const uint8_t* b[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) b[j] = reinterpret_cast<const uint8_t*>(columns + m + j * kLanes);
    clear_tiles<ROWS, COLUMNS>();
    tile_steps<ROWS, COLUMNS>(a, stride, tile, kTilePairs, b, steps, width * sizeof(Pair));
    store_tiles<ROWS, COLUMNS>(out + n * width + m, width);
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  for (int n = 0; n < rows; n += 2 * kTileRows16) {
    for (int m = 0; m < width; m += 2 * kLanes) {
      const bool wide = m + kLanes < width;
      if (n + kTileRows16 < rows) wide ? some(two, two, n, m) : some(two, one, n, m);
      else wide ? some(one, two, n, m) : some(one, one, n, m);
    }
  }
}

// Sixteen columns of pairs, rows `width` apart, turned around into steps for tiles; rows from `pairs` on are zero.
static inline void turn_columns(Pair* turned, const Pair* columns, int width, int pairs, int steps) {
  for (int s = 0; s < steps; ++s, turned += kTileRows16 * kTilePairs) {
    PairVec block[kTilePairs];
    for (int i = 0; i < kTilePairs; ++i) {
      const int k = s * kTilePairs + i;
      block[i] = k < pairs ? load(columns + static_cast<int64_t>(k) * width) : splat(Pair{0});
    }
    transpose(block);
    for (int i = 0; i < kTileRows16; ++i) store(turned + i * kTilePairs, block[i]);
  }
}

// Mixed values of a chunk: lanes are rows of a tile, columns of the values its outputs; so the columns, which are few, are
// turned around and not the values. What comes out is turned back as it is added.
template <class Start>
static inline void tile_mix(float* out, int dims, const Pair* zipped, int64_t stride, const Pair* columns, int width, int pairs,
                            Start start) {
  constexpr int kMostSteps = 2, kColumns = 4;
  const int steps = (pairs + kTilePairs - 1) / kTilePairs;
  alignas(64) Pair turned[kMostSteps][kTileRows16 * kTilePairs];
  alignas(64) float sums[kTileRows16 * kColumns * kLanes];
  for (int m = 0; m < width; m += kLanes) {
    turn_columns(turned[0], columns + m, width, pairs, steps);
    const auto some = [&]<int COLUMNS>(std::integral_constant<int, COLUMNS>, int d) {
      const uint8_t* b[COLUMNS];
      for (int j = 0; j < COLUMNS; ++j) b[j] = reinterpret_cast<const uint8_t*>(zipped + d + j * kLanes);
      clear_tiles<1, COLUMNS>();
      tile_steps<1, COLUMNS>(turned[0], kTilePairs, 0, kTileRows16 * kTilePairs, b, steps, stride * sizeof(Pair));
      store_tiles<1, COLUMNS>(sums, COLUMNS * kLanes);
      for (int j = 0; j < COLUMNS; ++j) {
        Vec block[kLanes];
        for (int i = 0; i < kLanes; ++i) block[i] = load(sums + (i * COLUMNS + j) * kLanes);
        transpose(block);
        for (int i = 0; i < kLanes && d + j * kLanes + i < dims; ++i) {
          float* at = out + static_cast<int64_t>(d + j * kLanes + i) * width + m;
          store(at, add(start(at, m), block[i]));
        }
      }
    };
    int d = 0;
    for (; d + (kColumns - 1) * kLanes < dims; d += kColumns * kLanes) some(std::integral_constant<int, kColumns>{}, d);
    for (; d < dims; d += kLanes) some(std::integral_constant<int, 1>{}, d);
  }
}

// Values as tiles of pairs: of 16 columns, rows 2k and 2k + 1 side by side, for k < pairs, which is a multiple of 16.
// Tiles of one k lie a line more than a power of two apart, so that they do not share a set of the first cache.
static inline int64_t zipped_tiles_apart(int pairs) { return static_cast<int64_t>(pairs) * kTileRows16 + kTilePairs; }

// Reads rows one after the other, as memory likes it. row(j) is zero where there is no row j.
template <class Row>
static inline void zip_to_tiles(Pair* zipped, Row row, int pairs, int dims) {
  const int64_t apart = zipped_tiles_apart(pairs);
  for (int k = 0; k < pairs; ++k) {
    const uint16_t *even = row(2 * k), *odd = row(2 * k + 1);
    Pair* to = zipped + k * kTilePairs;
    int d = 0;
    for (; d + 2 * kLanes <= dims; d += 2 * kLanes, to += 2 * apart) {
      PairVec low, high;
      zip_bf16(even + d, odd + d, low, high);
      store(to, low);
      store(to + apart, high);
    }
    if (d < dims) store(to, zip_bf16(even + d, odd + d));
  }
}

// mixed[lane][d] += sum over k < pairs of weights[k][lane] * zipped[k][d], for d < dims, a multiple of 16. Lanes are rows of
// a tile: `turned` [width][pairs] takes them so.
static inline void tile_mix_rows(float* mixed, int64_t stride, int dims, const Pair* zipped, const Pair* weights, int width,
                                 int pairs, Pair* turned) {
  const int steps = (pairs + kTilePairs - 1) / kTilePairs;
  const int64_t lanes_apart = static_cast<int64_t>(steps) * kTileRows16 * kTilePairs;
  const int64_t apart = zipped_tiles_apart(steps * kTilePairs);
  for (int m = 0; m < width; m += kLanes) turn_columns(turned + m / kLanes * lanes_apart, weights + m, width, pairs, steps);
  const auto some = [&]<int ROWS, int COLUMNS>(std::integral_constant<int, ROWS>, std::integral_constant<int, COLUMNS>, int m, int d) {
    float* out = mixed + m * stride + d;
    const uint8_t* b[COLUMNS];
    for (int i = 0; i < COLUMNS; ++i) b[i] = reinterpret_cast<const uint8_t*>(zipped + (d / kLanes + i) * apart);
    load_tiles<ROWS, COLUMNS>(out, stride);
    tile_steps<ROWS, COLUMNS>(turned + m / kLanes * lanes_apart, kTilePairs, lanes_apart, kTileRows16 * kTilePairs, b, steps);
    store_tiles<ROWS, COLUMNS>(out, stride);
  };
  constexpr std::integral_constant<int, 1> one;
  constexpr std::integral_constant<int, 2> two;
  constexpr std::integral_constant<int, 4> four;
  for (int d = 0; d < dims;) {
    const int left = (dims - d) / kLanes, columns = left >= 4 && width == kLanes ? 4 : left >= 2 ? 2 : 1;
    for (int m = 0; m < width; m += 2 * kLanes) {
      const bool tall = m + kLanes < width;
      if (columns == 4) some(one, four, m, d);
      else if (columns == 2) tall ? some(two, two, m, d) : some(one, two, m, d);
      else tall ? some(two, one, m, d) : some(one, one, m, d);
    }
    d += columns * kLanes;
  }
}
