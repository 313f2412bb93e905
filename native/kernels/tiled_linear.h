// The products of linear.h on matrix tiles, for operands of bf16 pairs: the same panels and scales. Each output is one chain
// over steps of 32 k in order (tiles.h); what fills up the last step is zero.

constexpr int kStepDepth = 2 * kTilePairs, kTileElements = kTileRows16 * kTilePairs;
constexpr int kStepQuads = kStepDepth / 4, kPartSteps = kScaleBlock / kStepDepth;  // a part of k shares a scale
constexpr int kPartPairs = kScaleBlock / 2, kPartQuads = kScaleBlock / 4;

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

// What a thread reads as one: bytes, and where it reads on.
struct Stream {
  const uint8_t *end, *after;

  // What to ask for when `at` is read: far enough ahead where little is computed.
  const uint8_t* ahead_of(const uint8_t* at) const {
    constexpr int kBytesAhead = 16 << 10;
    at += kBytesAhead;
    return at < end ? at : after + (at - end);
  }
};

// Decodes a step of an FP8 panel, `quads` of them, and asks for what lies at `ahead`.
[[gnu::always_inline]] static inline void decode_step(uint8_t* to, const uint8_t* codes, const uint8_t* ahead, int quads) {
  using From = Panel<PairMode, DType::PackedFP8>;
  if (quads == kStepQuads) {
#pragma GCC unroll 8
    for (int q = 0; q < kStepQuads; ++q) {
      __builtin_prefetch(ahead + q * kQuadBytes, 0, 2);
      From(codes + q * kQuadBytes).put(to + q * 2 * kQuadBytes);
    }
    return;
  }
  for (int q = 0; q < quads; ++q) From(codes + q * kQuadBytes).put(to + q * 2 * kQuadBytes);
  memset(to + quads * 2 * kQuadBytes, 0, (kStepQuads - quads) * 2 * kQuadBytes);
}

// FP8 panels [first, last), PANELS at a time. Nothing waits: while tiles multiply one part of 128 k, the next part is decoded
// between their steps, so that memory is read without a pause, and vectors scale and add the sums of the rows before.
// What is read `after` them is asked for when they end.
template <int ROWS, int PANELS>
static void multiply_decoded(const Activations<TileMode>& a, const RowBlock& rows, const View& weight, int first, int last,
                             const Finish& finish, const uint8_t* after) {
  using From = Panel<PairMode, DType::PackedFP8>;
  constexpr int kRows = ROWS * kTileRows16, kWidth = PANELS * kLanes;
  constexpr int kBytesAhead = 2048;  // of panels side by side
  const Stream stream{panel_of(weight, last), after};
  const int quads = padded_depth(weight) / 4, parts = (quads + kPartQuads - 1) / kPartQuads;
  const int groups = (rows.count + kRows - 1) / kRows, turns = (last - first) / PANELS * parts;
  alignas(64) uint8_t decoded[2][PANELS][kPartSteps * kTileBytes];
  alignas(64) float sums[2][kRows][kWidth], totals[kRowsAtOnce][kWidth];
  const auto quads_of = [&](int part) { return quads - part * kPartQuads < kPartQuads ? quads - part * kPartQuads : kPartQuads; };

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
    const int count = turn < turns ? quads_of(next.index) : 0, steps = turn > 0 ? (quads_of(now.index) + kStepQuads - 1) / kStepQuads : 0;
    const uint8_t *codes[PANELS], *far[PANELS];
    for (int j = 0; j < PANELS; ++j) {
      codes[j] = panel_of(weight, next.panel + j) + From::offset(next.index * kPartPairs);
      far[j] = PANELS == 1 ? stream.ahead_of(codes[j]) : codes[j] + kBytesAhead;
    }
    int decodes = 0;
    for (int group = 0; group < groups; ++group) {
      const int m = group * kRows;
      if (steps) clear_tiles<ROWS, PANELS>();
      for (int s = 0; s < kPartSteps; ++s) {
        for (const int end = count ? (group * kPartSteps + s + 1) * PANELS / groups : 0; decodes < end; ++decodes) {
          const int j = decodes / kPartSteps, step = decodes % kPartSteps, left = count - step * kStepQuads;
          if (left <= 0) continue;
          const int64_t at = step * kStepQuads * kQuadBytes;
          decode_step(decoded[turn % 2][j] + step * kTileBytes, codes[j] + at, far[j] + at, left < kStepQuads ? left : kStepQuads);
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
static void multiply(const Activations<TileMode>& a, const RowBlock& rows, const View& weight, int first, int last, const Finish& finish,
                     const uint8_t* after) {
  if (weight.dtype == DType::PackedFP8) {
    if (rows.count <= kTileRows16) return multiply_decoded<1, 1>(a, rows, weight, first, last, finish, after);
    if (rows.count <= 2 * kTileRows16) return multiply_decoded<2, 1>(a, rows, weight, first, last, finish, after);
    const int even = first + (last - first) / 2 * 2;
    if (even > first) multiply_decoded<2, 2>(a, rows, weight, first, even, finish, panel_of(weight, even));
    if (last > even) multiply_decoded<2, 1>(a, rows, weight, even, last, finish, after);
    return;
  }
  int panel = first;
  if (rows.count <= kTileRows16)
    for (; panel + 4 <= last; panel += 4) multiply_stored<4>(a, rows, weight, panel, finish);
  for (; panel + 2 <= last; panel += 2) multiply_stored<2>(a, rows, weight, panel, finish);
  for (; panel < last; ++panel) multiply_stored<1>(a, rows, weight, panel, finish);
}
