// The products of linear.h on matrix tiles, for operands of bf16 pairs: the same blocks of rows, panels and scales.
// Each output is one chain over steps of 32 k in order (tiles.h); what fills up the last step is zero.

// Panels of a block of k in steps for tiles: decoded, or as they are but for the last step, which is filled up.
template <DType format, int PANELS>
struct TilePanels {
  static constexpr bool kDecodes = format == DType::PackedFP8;
  static constexpr int kSteps = kDecodes ? kScaleBlock / 2 / kTilePairs : 1;
  alignas(64) uint8_t scratch[PANELS][kSteps * kTileBytes];
  const uint8_t* whole[PANELS];  // steps as they lie in memory, or decoded
  const uint8_t* last[PANELS];   // the step that is filled up
  int whole_steps, last_steps;

  // Pairs [first, first + count) of panels `panel`..
  void take(const View& weight, int panel, int first, int count) {
    whole_steps = kDecodes ? (count + kTilePairs - 1) / kTilePairs : count / kTilePairs;
    last_steps = !kDecodes && count % kTilePairs ? 1 : 0;
    for (int j = 0; j < PANELS; ++j) {
      using From = Panel<PairMode, format>;
      const uint8_t* from = panel_of(weight, panel + j) + From::offset(first);
      uint8_t* to = scratch[j];
      whole[j] = kDecodes ? to : from;
      last[j] = to;
      if constexpr (kDecodes) {
        for (int p = 0; p < count; p += 2, to += 2 * 64) {
          __builtin_prefetch(from + From::offset(p) + kBytesAhead);
          From(from + From::offset(p)).put(to);
        }
      } else {
        const int done = whole_steps * kTilePairs;
        for (int p = done; p < count; ++p, to += 64) From(from + From::offset(p)).put(to);
      }
      if (count % kTilePairs) memset(to, 0, (kTilePairs - count % kTilePairs) * 64);
    }
  }
};

// Sums of ROWS x 16 rows of a over the taken pairs, into sums[row][PANELS * 16].
template <int ROWS, DType format, int PANELS>
static inline void sum_tiles(const Pair* a, int64_t row, const TilePanels<format, PANELS>& b, float* sums) {
  clear_tiles<ROWS, PANELS>();
  tile_steps<ROWS, PANELS>(a, row, kTileRows16 * row, kTilePairs, b.whole, b.whole_steps);
  tile_steps<ROWS, PANELS>(a + b.whole_steps * kTilePairs, row, kTileRows16 * row, kTilePairs, b.last, b.last_steps);
  store_tiles<ROWS, PANELS>(sums, PANELS * kLanes);
}

template <DType format, int PANELS>
static void multiply_tiles(const Activations<PairMode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish) {
  constexpr bool kScaled = format == DType::PackedFP8;
  constexpr int kRowTiles = PANELS <= 2 ? 2 : 1, kRows = kRowTiles * kTileRows16, kWidth = PANELS * kLanes;
  const int pairs = padded_depth(weight) / 2, span = kScaled ? kScaleBlock / 2 : pairs;
  const float* scales = kScaled ? weight.scales + static_cast<int64_t>(panel * kLanes / kScaleBlock) *
                                                      ((weight.cols + kScaleBlock - 1) / kScaleBlock)
                                : nullptr;
  alignas(64) float totals[kScaled ? kRowsAtOnce : 1][kWidth];
  alignas(64) float sums[kRows][kWidth];
  TilePanels<format, PANELS> b;
  for (int first = 0; first < pairs; first += span) {
    b.take(weight, panel, first, pairs - first < span ? pairs - first : span);
    for (int m = 0; m < rows.count; m += kRows) {
      const int left = rows.count - m < kRows ? rows.count - m : kRows;
      const Pair* from = a.data + m * a.stride + first;
      if (first + span >= pairs) prefetch_outputs(rows, m, left, panel, PANELS);
      if (left > kTileRows16) sum_tiles<kRowTiles>(from, a.stride, b, sums[0]);
      else sum_tiles<1>(from, a.stride, b, sums[0]);
      const bool ends = first + span >= pairs;
      for (int i = 0; i < left; ++i) {
        for (int j = 0; j < PANELS; ++j) {
          Vec sum = load(sums[i] + j * kLanes);
          if constexpr (kScaled) {
            float* total = totals[m + i] + j * kLanes;
            sum = fma(splat(scales[first / span]), sum, first == 0 ? zero() : load(total));
            store(total, sum);
          }
          if (ends) write_sums(rows, m + i, panel + j, weight.times, sum, finish);
        }
      }
    }
  }
}

template <int PANELS>
static inline void multiply_tiles(const Activations<PairMode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish) {
  if (weight.dtype == DType::PackedFP8) multiply_tiles<DType::PackedFP8, PANELS>(a, rows, weight, panel, finish);
  else multiply_tiles<DType::PackedBF16, PANELS>(a, rows, weight, panel, finish);
}

// Panels [first, last) of a block of rows; one tile of rows takes four panels at once, more take two.
static void multiply(const Activations<PairMode>& a, const RowBlock& rows, const View& weight, int first, int last, const Finish& finish) {
  // the scales of FP4 change too often for tiles
  if (weight.dtype == DType::PackedFP4) return multiply<PairMode>(a, rows, weight, first, last, finish);
  int panel = first;
  if (rows.count <= kTileRows16)
    for (; panel + 4 <= last && panel % 4 == 0; panel += 4) multiply_tiles<4>(a, rows, weight, panel, finish);
  for (; panel + 2 <= last && panel % 2 == 0; panel += 2) multiply_tiles<2>(a, rows, weight, panel, finish);
  for (; panel < last; ++panel) multiply_tiles<1>(a, rows, weight, panel, finish);
}
