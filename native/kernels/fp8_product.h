// Products of FP8 training: both operands are e4m3 numbers, whose products are exact in f32; sums over each 128 of the
// depth are then scaled by both operands' scales and added to an f32 total (DeepSeek-V3 report §3.3.2).
// Each output is one chain: the order of sums depends on the depth alone.

constexpr int kFp8Rows = kHasTiles ? kRowsAtOnce : 8 * kProductRows;  // most rows of a block
constexpr int kFp8Panels = kScaleBlock / kLanes;                     // panels under one row of weight blocks
constexpr int kBlockPairs = kScaleBlock / 2;

// A block of rows as operand of a product: e4m3 numbers, and scales [tile][row].
template <class Mode>
struct Fp8Block {
  Activations<Mode> numbers;
  float* scales;

  void take(int m, const uint8_t* codes, const float* row_scales, int depth, int padded) const {
    auto* to = numbers.data + m * numbers.stride;
#if defined(FARTHING_avx512)
    for (int c = 0; c < padded; c += 4 * kLanes, to += 2 * kLanes) {
      const Quad quad = load_in_order(codes + c, depth - c < 4 * kLanes ? (depth > c ? depth - c : 0) : 4 * kLanes);
      store(to, quad.first);
      if (c + 2 * kLanes < padded) store(to + kLanes, quad.second);
    }
#else
    each_vec(0, depth, [&](int c, int lanes) { store_up_to(to + c, load_e4m3_up_to(codes + c, lanes), lanes); });
    for (int c = depth; c < padded; ++c) to[c] = 0;
#endif
    for (int t = 0; t * kScaleBlock < depth; ++t) scales[t * kFp8Rows + m] = row_scales[t];
  }
};

#if defined(FARTHING_amx)

// Panels of a weight as steps for tiles, decoded whole: [panel][step], each block of 128 beginning a step.
struct Fp8Panels {
  uint8_t* steps;
  int64_t panel_bytes;

  static constexpr int kBlockSteps = kBlockPairs / kTilePairs;
  static int64_t bytes_of(const View& weight) {
    return static_cast<int64_t>((weight.cols + kScaleBlock - 1) / kScaleBlock) * kBlockSteps * kTileBytes;
  }

  void take(const View& weight, int panel, int count) const {
    using Codes = Panel<PairMode, DType::PackedFP8>;
    const int pairs = padded_depth(weight) / 2;
    for (int j = 0; j < count; ++j) {
      uint8_t* to = steps + j * panel_bytes;
      const uint8_t* from = panel_of(weight, panel + j);
      for (int p = 0; p < pairs; p += Codes::kPairsAtOnce) Codes(from + Codes::offset(p)).put(to + p * 64);
      if (pairs % kTilePairs) memset(to + pairs * 64, 0, (kTilePairs - pairs % kTilePairs) * 64);
    }
  }
};

// Up to 16 * ROWS rows from m on times PANELS panels.
template <int ROWS, int PANELS>
static inline void multiply_fp8_tiles(const Fp8Block<PairMode>& a, const Fp8Panels& b, const RowBlock& rows, int m, const View& weight,
                                      int panel, const Finish& finish) {
  constexpr int kRows = ROWS * kTileRows16, kWidth = PANELS * kLanes;
  const int left = rows.count - m < kRows ? rows.count - m : kRows;
  const int tiles = (weight.cols + kScaleBlock - 1) / kScaleBlock, steps = (padded_depth(weight) / 2 + kTilePairs - 1) / kTilePairs;
  const float* scales = weight.scales + static_cast<int64_t>(panel / kFp8Panels) * tiles;
  alignas(64) float sums[kRows][kWidth], totals[kRows][kWidth];
  for (int t = 0; t < tiles; ++t) {
    const int first = t * Fp8Panels::kBlockSteps, count = steps - first < Fp8Panels::kBlockSteps ? steps - first : Fp8Panels::kBlockSteps;
    const uint8_t* panels[PANELS];
    for (int j = 0; j < PANELS; ++j) panels[j] = b.steps + j * b.panel_bytes + static_cast<int64_t>(first) * kTileBytes;
    clear_tiles<ROWS, PANELS>();
    const int64_t stride = a.numbers.stride;
    tile_steps<ROWS, PANELS>(a.numbers.data + m * stride + first * kTilePairs, stride, kTileRows16 * stride, kTilePairs, panels, count);
    store_tiles<ROWS, PANELS>(sums[0], kWidth);
    for (int i = 0; i < left; ++i) {
      const Vec scale = splat(a.scales[t * kFp8Rows + m + i] * scales[t]);
      for (int j = 0; j < PANELS; ++j) {
        float* total = totals[i] + j * kLanes;
        store(total, fma(scale, load(sums[i] + j * kLanes), t == 0 ? zero() : load(total)));
      }
    }
  }
  for (int i = 0; i < left; ++i)
    for (int j = 0; j < PANELS; ++j) write_sums(rows, m + i, panel + j, weight.times, load(totals[i] + j * kLanes), finish);
}

template <int PANELS>
static void multiply_fp8(const Fp8Block<PairMode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish,
                         uint8_t* decoded) {
  const Fp8Panels b{decoded, Fp8Panels::bytes_of(weight)};
  b.take(weight, panel, PANELS);
  for (int m = 0; m < rows.count; m += 2 * kTileRows16) {
    if (rows.count - m > kTileRows16) multiply_fp8_tiles<2, PANELS>(a, b, rows, m, weight, panel, finish);
    else multiply_fp8_tiles<1, PANELS>(a, b, rows, m, weight, panel, finish);
  }
}

#endif

template <int PANELS, class Mode>
static void multiply_fp8(const Fp8Block<Mode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish, const void*) {
  using Codes = Panel<Mode, DType::PackedFP8>;
  using Decoded = Panel<Mode, Mode::kScratchFormat>;
  const int pairs = padded_depth(weight) / 2, tiles = (weight.cols + kScaleBlock - 1) / kScaleBlock;
  const float* scales = weight.scales + static_cast<int64_t>(panel / kFp8Panels) * tiles;
  alignas(64) uint8_t decoded[PANELS][Decoded::offset(kBlockPairs)];
  Vec totals[kFp8Rows + kTileOverhang][PANELS];
  const uint8_t* panels[PANELS];
  for (int t = 0; t < tiles; ++t) {
    const int first = t * kBlockPairs, count = pairs - first < kBlockPairs ? pairs - first : kBlockPairs;
    for (int j = 0; j < PANELS; ++j) {
      const uint8_t* from = panel_of(weight, panel + j) + Codes::offset(first);
      for (int p = 0; p < count; p += Codes::kPairsAtOnce) Codes(from + Codes::offset(p)).put(decoded[j] + Decoded::offset(p));
      panels[j] = decoded[j];
    }
    each_tile<kProductRows>(rows.count, [&](auto tile_rows, int m) {
      constexpr int ROWS = decltype(tile_rows)::value;
      Vec sums[ROWS][PANELS];
      for (auto& row : sums)
        for (Vec& sum : row) sum = zero();
      const auto* from = a.numbers.data + m * a.numbers.stride + static_cast<int64_t>(first) * Mode::kPerPair;
      tile<Mode, Mode::kScratchFormat, ROWS, PANELS>(from, a.numbers.stride, 1, panels, 0, count, sums);
      for (int i = 0; i < ROWS && m + i < rows.count; ++i) {
        const Vec scale = splat(a.scales[t * kFp8Rows + m + i] * scales[t]);
        for (int j = 0; j < PANELS; ++j) totals[m + i][j] = fma(scale, sums[i][j], t == 0 ? zero() : totals[m + i][j]);
      }
    });
  }
  for (int m = 0; m < rows.count; ++m)
    for (int j = 0; j < PANELS; ++j) write_sums(rows, m, panel + j, weight.times, totals[m][j], finish);
}

using Fp8Mode = std::conditional_t<kPairProducts, PairMode, FloatMode>;

// Runs products x blocks of rows x rows of weight blocks on all threads.
template <class Products>
static void run_fp8_products(const Op& op, const Context& ctx, const Products& products, const View& codes, const View& scales,
                             const Finish& finish) {
  using Element = Fp8Mode::Element;
  const View& shape = products.weight(0);
  constexpr int kDepthStep = kHasTiles ? 2 * kTilePairs : 1;
  const int padded = (padded_depth(shape) + kDepthStep - 1) / kDepthStep * kDepthStep;
  const int64_t stride = Activations<Fp8Mode>::stride_for(padded);
  const int64_t numbers = stride * (kFp8Rows + kTileOverhang), spare = static_cast<int64_t>(scales.cols) * kFp8Rows;
  int64_t decoded_bytes = 0;
#if defined(FARTHING_amx)
  decoded_bytes = 2 * Fp8Panels::bytes_of(shape);
#endif
  const int64_t decoded = (decoded_bytes + 63) / 64 * 64 / static_cast<int64_t>(sizeof(Element));
  auto* memory = ctx.local<Element>(decoded + numbers + spare);
  auto* panel_memory = reinterpret_cast<uint8_t*>(memory);
  const Fp8Block<Fp8Mode> block{{memory + decoded, stride}, reinterpret_cast<float*>(memory + decoded + numbers)};
  each_block(
      op, ctx, products, kFp8Rows, kFp8Panels, 8,
      [&](int m, int product, int64_t row) {
        const int64_t from = products.source(product, row);
        block.take(m, codes.u8(from), scales.f32(from), shape.cols, padded);
      },
      [&](const RowBlock& rows, const View& weight, int panel, int end) {
        if constexpr (kProductPanels == 2)
          for (; panel + 2 <= end; panel += 2) multiply_fp8<2>(block, rows, weight, panel, finish, panel_memory);
        for (; panel < end; ++panel) multiply_fp8<1>(block, rows, weight, panel, finish, panel_memory);
      });
}

struct OneFp8Product {
  const View &y, &w;
  int64_t all_rows;
  int count() const { return 1; }
  int64_t rows(int) const { return all_rows; }
  const View& weight(int) const { return w; }
  int64_t source(int, int64_t row) const { return row; }
  float* out(int, int64_t row) const { return y.f32(row); }
};

// [y] <- [codes, scales, weight, bias | null], scalars: accumulate
static void fp8_linear(const Op& op, const Context& ctx) {
  const View& y = op.views[0];
  const Finish finish{static_cast<const float*>(op.views[4].data), op.scalars[0] != 0};
  run_fp8_products(op, ctx, OneFp8Product{y, op.views[3], ctx.rows(y)}, op.views[1], op.views[2], finish);
}

// Sorted places of an expert; their rows are gathered by token, or lie sorted already (top_k 0).
struct Fp8ExpertProducts {
  const View &y, *weights;
  const int32_t *order, *offsets;
  int experts, top_k;
  int count() const { return experts; }
  int64_t rows(int expert) const { return offsets[expert + 1] - offsets[expert]; }
  const View& weight(int expert) const { return weights[expert]; }
  int64_t source(int expert, int64_t row) const {
    const int64_t place = offsets[expert] + row;
    return top_k ? order[place] / top_k : place;
  }
  float* out(int expert, int64_t row) const { return y.f32(offsets[expert] + row); }
};

// [y sorted] <- [codes, scales, order, offsets, weights…], scalars: topK to gather by or 0, accumulate
static void fp8_expert_linear(const Op& op, const Context& ctx) {
  const View &order = op.views[3], &offsets = op.views[4];
  const Fp8ExpertProducts products{op.views[0], &op.views[5], order.i32(), offsets.i32(), offsets.times - 1,
                                   static_cast<int>(op.scalars[0])};
  run_fp8_products(op, ctx, products, op.views[1], op.views[2], Finish{nullptr, op.scalars[1] != 0});
}
