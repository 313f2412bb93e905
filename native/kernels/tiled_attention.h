// The products of attention_tile.h on matrix tiles (tiles.h), for operands of bf16 pairs. Lanes stay apart in them too.

// Scores over whole steps of 16 pairs: rows of x are rows of a tile, lanes of the columns its outputs.
static inline void tile_scores(float* out, int rows, const Pair* x, int64_t stride, const Pair* columns, int width, int steps) {
  const auto some = [&]<int ROWS, int COLUMNS>(std::integral_constant<int, ROWS>, std::integral_constant<int, COLUMNS>, int n, int m) {
    const uint8_t* b[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) b[j] = reinterpret_cast<const uint8_t*>(columns + m + j * kLanes);
    clear_tiles<ROWS, COLUMNS>();
    tile_steps<ROWS, COLUMNS>(x + n * stride, stride, kTileRows16 * stride, kTilePairs, b, steps, width * sizeof(Pair));
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
    for (int s = 0; s < steps; ++s) {
      PairVec block[kTilePairs];
      for (int i = 0; i < kTilePairs; ++i) {
        const int k = s * kTilePairs + i;
        block[i] = k < pairs ? load(columns + static_cast<int64_t>(k) * width + m) : splat(Pair{0});
      }
      transpose(block);
      for (int i = 0; i < kTileRows16; ++i) store(turned[s] + i * kTilePairs, block[i]);
    }
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
