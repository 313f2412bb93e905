// The products of linear.h on matrix tiles, for operands of bf16 pairs: the same panels and scales. Each output is one chain
// over steps of 32 k in order (tiles.h); what fills up the last step is zero.

constexpr int kStepDepth = 2 * kTilePairs, kTileElements = kTileRows16 * kTilePairs;
constexpr int kPartSteps = kScaleBlock / kStepDepth, kPartPairs = kScaleBlock / 2;  // of k that shares a scale

// Activations as tiles, tile[row / 16][k / 32][16][32] bf16, so that a product reads them in one stream.
struct TileMode {
  using Element = Pair;
};
template <>
struct Activations<TileMode> {
  Pair* data;
  int64_t stride;  // of a tile of rows

  static int steps(int depth) { return (depth + kStepDepth - 1) / kStepDepth; }
  static int64_t stride_for(int depth) { return steps(depth) * kTilePairs; }
  static int64_t room(int depth, int rows) { return stride_for(depth) * rows; }
  static Activations of(Pair* data, int depth, int) { return {data, int64_t{steps(depth)} * kTileElements}; }

  Pair* at(int m, int step) const { return data + m / kTileRows16 * stride + step * kTileElements + m % kTileRows16 * kTilePairs; }
  void take(int m, const float* row, int depth, int, bool) const {
    Pair* to = at(m, 0);
    for (int k = 0; k < depth; k += kStepDepth, to += kTileElements)
      PairMode::take_row(to, row + k, depth - k < kStepDepth ? depth - k : kStepDepth, kStepDepth, true);
  }
};

// FP8 panels [first, last), PANELS at a time. Nothing waits: while tiles multiply one part of 128 k, the next part is decoded
// between their steps, so that memory is read without a pause, and vectors scale and add the sums of the rows before.
template <int ROWS, int PANELS>
static void multiply_decoded(const Activations<TileMode>& a, const RowBlock& rows, const View& weight, int first, int last, const Finish& finish) {
  using From = Panel<PairMode, DType::PackedFP8>;
  constexpr int kRows = ROWS * kTileRows16, kWidth = PANELS * kLanes, kBytesAhead = 2048;
  constexpr int kQuads = kPartPairs / From::kPairsAtOnce;  // of a part of a panel
  const int pairs = padded_depth(weight) / 2, parts = (pairs + kPartPairs - 1) / kPartPairs;
  const int groups = (rows.count + kRows - 1) / kRows, turns = (last - first) / PANELS * parts;
  alignas(64) uint8_t decoded[2][PANELS][kPartSteps * kTileBytes];
  alignas(64) float sums[2][kRows][kWidth], totals[kRowsAtOnce][kWidth];
  const auto pairs_of = [&](int part) { return pairs - part * kPartPairs < kPartPairs ? pairs - part * kPartPairs : kPartPairs; };

  struct Part {
    int panel, index;
  } next{first, 0}, now = next;  // what is decoded and what is multiplied
  struct {
    Part part;
    int m = 0, until = 0;
    const float* sums;
  } waiting;  // rows that are multiplied and not finished
  const auto finish_quarter = [&](int quarter) {
    const int from = waiting.m + quarter * (kRows / kPartSteps), to = from + kRows / kPartSteps;
    const int until = to < waiting.until ? to : waiting.until;
    if (from >= until) return;
    const auto [panel, part] = waiting.part;
    const Vec scale = splat(block_row_scales(weight, panel)[part]);
    const float* sum = waiting.sums + (from - waiting.m) * kWidth;
    float* total = totals[from];
    if (part + 1 == parts) {
      for (int m = from; m < until; ++m, sum += kWidth, total += kWidth)
        for (int j = 0; j < PANELS; ++j)
          write_sums(rows, m, panel + j, weight.times, fma(scale, load(sum + j * kLanes), part == 0 ? zero() : load(total + j * kLanes)), finish);
    } else {
      for (int i = 0; i < (until - from) * kWidth; i += kLanes)
        store(total + i, fma(scale, load(sum + i), part == 0 ? zero() : load(total + i)));
    }
  };
  int written = 0;  // of the two rooms for sums
  for (int turn = 0; turn <= turns; ++turn) {
    const int count = turn < turns ? pairs_of(next.index) : 0, steps = turn > 0 ? (pairs_of(now.index) + kTilePairs - 1) / kTilePairs : 0;
    const uint8_t* codes[PANELS];
    for (int j = 0; j < PANELS; ++j) {
      codes[j] = panel_of(weight, next.panel + j) + From::offset(next.index * kPartPairs);
      if (count % kTilePairs) memset(decoded[turn % 2][j] + count * 64, 0, (kTilePairs - count % kTilePairs) * 64);
    }
    int quad = 0;
    for (int group = 0; group < groups; ++group) {
      const int m = group * kRows;
      if (steps) clear_tiles<ROWS, PANELS>();
      for (int s = 0; s < kPartSteps; ++s) {
        for (const int end = count ? (group * kPartSteps + s + 1) * PANELS * kQuads / (groups * kPartSteps) : 0; quad < end; ++quad) {
          const int j = quad / kQuads, q = quad % kQuads;
          if (q * From::kPairsAtOnce >= count) continue;
          __builtin_prefetch(codes[j] + q * kQuadBytes + kBytesAhead);
          From(codes[j] + q * kQuadBytes).put(decoded[turn % 2][j] + q * 2 * kQuadBytes);
        }
        finish_quarter(s);
        if (s >= steps) continue;
        const uint8_t* step[PANELS];
        for (int j = 0; j < PANELS; ++j) step[j] = decoded[(turn + 1) % 2][j] + s * kTileBytes;
        tile_steps<ROWS, PANELS>(a.at(m, now.index * kPartSteps + s), kTilePairs, a.stride, 0, step, 1);
      }
      waiting.until = 0;
      if (!steps) continue;
      store_tiles<ROWS, PANELS>(sums[written][0], kWidth);
      waiting = {now, m, m + kRows < rows.count ? m + kRows : rows.count, sums[written][0]};
      written ^= 1;
    }
    now = next;
    if (++next.index == parts) next = {next.panel + PANELS, 0};
  }
  for (int quarter = 0; quarter < kPartSteps; ++quarter) finish_quarter(quarter);
}

// PANELS BF16 panels, all of k in one chain.
template <int PANELS>
static void multiply_stored(const Activations<TileMode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish) {
  constexpr int kRowTiles = PANELS <= 2 ? 2 : 1, kRows = kRowTiles * kTileRows16, kWidth = PANELS * kLanes;
  const int pairs = padded_depth(weight) / 2, whole = pairs / kTilePairs, left = pairs % kTilePairs;
  alignas(64) uint8_t last[PANELS][kTileBytes] = {};  // the step that is filled up
  alignas(64) float sums[kRows][kWidth];
  const uint8_t *from[PANELS], *end[PANELS];
  for (int j = 0; j < PANELS; ++j) {
    from[j] = panel_of(weight, panel + j);
    end[j] = last[j];
    memcpy(last[j], from[j] + whole * kTileBytes, left * 64);
  }
  for (int m = 0; m < rows.count; m += kRows) {
    prefetch_outputs(rows, m, kRows, panel, PANELS);
    const auto sum = [&]<int ROWS>(std::integral_constant<int, ROWS>) {
      clear_tiles<ROWS, PANELS>();
      tile_steps<ROWS, PANELS>(a.at(m, 0), kTilePairs, a.stride, kTileElements, from, whole);
      tile_steps<ROWS, PANELS>(a.at(m, whole), kTilePairs, a.stride, kTileElements, end, left > 0);
      store_tiles<ROWS, PANELS>(sums[0], kWidth);
    };
    if (rows.count - m > kTileRows16) sum(std::integral_constant<int, kRowTiles>{});
    else sum(std::integral_constant<int, 1>{});
    for (int i = 0; i < kRows && m + i < rows.count; ++i)
      for (int j = 0; j < PANELS; ++j) write_sums(rows, m + i, panel + j, weight.times, load(sums[i] + j * kLanes), finish);
  }
}

// Panels [first, last) of a block of rows.
static void multiply(const Activations<TileMode>& a, const RowBlock& rows, const View& weight, int first, int last, const Finish& finish) {
  if (weight.dtype == DType::PackedFP8) {
    if (rows.count <= kTileRows16) return multiply_decoded<1, 1>(a, rows, weight, first, last, finish);
    if (rows.count <= 2 * kTileRows16) return multiply_decoded<2, 1>(a, rows, weight, first, last, finish);
    const int even = first + (last - first) / 2 * 2;
    if (even > first) multiply_decoded<2, 2>(a, rows, weight, first, even, finish);
    if (last > even) multiply_decoded<2, 1>(a, rows, weight, even, last, finish);
    return;
  }
  int panel = first;
  if (rows.count <= kTileRows16)
    for (; panel + 4 <= last; panel += 4) multiply_stored<4>(a, rows, weight, panel, finish);
  for (; panel + 2 <= last; panel += 2) multiply_stored<2>(a, rows, weight, panel, finish);
  for (; panel < last; ++panel) multiply_stored<1>(a, rows, weight, panel, finish);
}
