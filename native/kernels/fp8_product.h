// Products of FP8 training: both operands are e4m3 numbers, whose products are exact in f32; sums over each 128 of the
// depth are then scaled by both operands' scales and added to an f32 total (DeepSeek-V3 report §3.3.2).
// Each output is one chain: the order of sums depends on the depth alone.

constexpr int kFp8Rows = 8 * kProductRows;         // most rows of a block
constexpr int kFp8Panels = kScaleBlock / kLanes;   // panels under one row of weight blocks

// A block of rows as operand of a product: e4m3 numbers, and scales [tile][row].
template <class Mode>
struct Fp8Block {
  Activations<Mode> numbers;
  float* scales;

  void take(int m, const uint8_t* codes, const float* row_scales, int depth, int padded, float* row) const {
    each_vec(0, depth, [&](int c, int lanes) { store_up_to(row + c, load_e4m3_up_to(codes + c, lanes), lanes); });
    Mode::take_row(numbers.data + m * numbers.stride, row, depth, padded, false);
    for (int t = 0; t * kScaleBlock < depth; ++t) scales[t * kFp8Rows + m] = row_scales[t];
  }
};

template <class Mode, int PANELS>
static void multiply_fp8(const Fp8Block<Mode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish) {
  constexpr int kBlockPairs = kScaleBlock / 2;
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

// Runs products x blocks of rows x rows of weight blocks on all threads.
template <class Mode, class Products>
static void run_fp8_products(const Op& op, const Context& ctx, const Products& products, const View& codes, const View& scales,
                             const Finish& finish) {
  const View& shape = products.weight(0);
  const int padded = padded_depth(shape), panels = panels_of(shape.times), chunks = (panels + kFp8Panels - 1) / kFp8Panels;
  const int64_t stride = Activations<Mode>::stride_for(padded);
  const int64_t numbers = stride * (kFp8Rows + kTileOverhang), spare = scales.cols * kFp8Rows;
  auto* memory = ctx.local<typename Mode::Element>(numbers + spare + padded);
  const Fp8Block<Mode> block{{memory, stride}, reinterpret_cast<float*>(memory + numbers)};
  float* row = block.scales + spare;
  const auto blocks_of = [&](int product) { return (products.rows(product) + kFp8Rows - 1) / kFp8Rows; };
  int64_t blocks = 0;
  for (int p = 0; p < products.count(); ++p) blocks += blocks_of(p);
  RowBlock rows;
  int64_t taken = -1, start = 0;  // start: blocks before this product
  int product = 0;
  ctx.parallel(op, blocks * chunks, 1, [&](int64_t item, int64_t) {
    const int64_t at = item / chunks;
    while (at >= start + blocks_of(product)) start += blocks_of(product++);
    if (at != taken) {
      taken = at;
      const int64_t first = (at - start) * kFp8Rows, left = products.rows(product) - first;
      rows.count = static_cast<int>(left < kFp8Rows ? left : kFp8Rows);
      for (int m = 0; m < rows.count; ++m) {
        const int64_t from = products.source(product, first + m);
        rows.out[m] = products.out(product, first + m);
        block.take(m, codes.u8(from), scales.f32(from), shape.cols, padded, row);
      }
    }
    const View& weight = products.weight(product);
    const int last = static_cast<int>(item % chunks + 1) * kFp8Panels, end = last < panels ? last : panels;
    int panel = static_cast<int>(item % chunks) * kFp8Panels;
    if constexpr (kProductPanels == 2)
      for (; panel + 2 <= end; panel += 2) multiply_fp8<Mode, 2>(block, rows, weight, panel, finish);
    for (; panel < end; ++panel) multiply_fp8<Mode, 1>(block, rows, weight, panel, finish);
  });
}

template <class Products>
static void run_fp8_products(const Op& op, const Context& ctx, const Products& products, const View& codes, const View& scales,
                             const Finish& finish) {
  if (kPairProducts) run_fp8_products<PairMode>(op, ctx, products, codes, scales, finish);
  else run_fp8_products<FloatMode>(op, ctx, products, codes, scales, finish);
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

// A piece of 128 tokens and up to so many columns, quantised again in tiles that run along the tokens.
constexpr int kFp8Outputs = 16 * kProductRows, kFp8Columns = 24 * kLanes;

// Numbers of one operand of a weight gradient: f32, or e4m3 codes with 1 x 128 tiles along the columns.
struct TokenRows {
  const View &values, &scales;
  Vec at(int64_t row, int c, int lanes) const {
    if (values.dtype != DType::FP8) return load_up_to(values.f32(row) + c, lanes);
    return mul(load_e4m3_up_to(values.u8(row) + c, lanes), splat(scales.f32(row)[c / kScaleBlock]));
  }
};

// Columns [c0, c1) of the rows row_of(0)..: e4m3 numbers [rows][width] and one scale a column.
template <class RowOf>
static void quantise_columns(const TokenRows& from, int rows, int c0, int c1, RowOf row_of, bool power_of_two, int width,
                             float* numbers, float* scales) {
  each_vec(c0, c1, [&](int c, int lanes) {
    Vec most = zero();
    for (int r = 0; r < rows; ++r) most = max(most, magnitude(from.at(row_of(r), c, lanes)));
    float* scale = scales + c - c0;
    store(scale, most);
    for (int lane = 0; lane < kLanes; ++lane) scale[lane] = e4m3_scale(scale[lane], power_of_two);
    const Vec divisor = load(scale);
    for (int r = 0; r < rows; ++r) store(numbers + r * width + c - c0, round_to_e4m3(div(from.at(row_of(r), c, lanes), divisor)));
  });
}

// dW[n, k] += sum over rows r of dy[r, n] · x[r, k]; rows of expert e are row e's [0, rows_of(e)).
template <class Mode, class RowsOf, class DyRow, class XRow>
static void run_fp8_outer(const Op& op, const Context& ctx, const View* gradients, int count, const TokenRows& dy,
                          const TokenRows& x, RowsOf rows_of, DyRow dy_row, XRow x_row, bool power_of_two) {
  using Element = typename Mode::Element;
  constexpr int kPairs = kScaleBlock / 2;
  constexpr int64_t kPanel = static_cast<int64_t>(kPairs) * Mode::kPerPair * kLanes;
  constexpr int64_t kOperand = (static_cast<int64_t>(kPairs) * kFp8Outputs + kLanes) * Mode::kPerPair;
  const int outputs = gradients[0].times, depth = gradients[0].cols;
  const int across = (outputs + kFp8Outputs - 1) / kFp8Outputs, along = (depth + kFp8Columns - 1) / kFp8Columns;
  constexpr int64_t kFloats = kScaleBlock * kFp8Columns + kFp8Outputs + kFp8Columns;
  static_assert(sizeof(Element) == sizeof(float) && kFp8Outputs <= kFp8Columns);
  auto* operand = ctx.local<Element>(kOperand + kPanel * (kFp8Columns / kLanes) + kFloats);
  auto* panels = operand + kOperand;
  auto* numbers = reinterpret_cast<float*>(panels + kPanel * (kFp8Columns / kLanes));
  float *dy_scales = numbers + kScaleBlock * kFp8Columns, *x_scales = dy_scales + kFp8Outputs;
  ctx.parallel(op, static_cast<int64_t>(count) * across * along, 1, [&](int64_t item, int64_t) {
    const int e = static_cast<int>(item / (across * along)), at = static_cast<int>(item % (across * along));
    const int n0 = at / along * kFp8Outputs, k0 = at % along * kFp8Columns;
    const int n1 = n0 + kFp8Outputs < outputs ? n0 + kFp8Outputs : outputs;
    const int k1 = k0 + kFp8Columns < depth ? k0 + kFp8Columns : depth;
    const View& dw = gradients[e];
    const int64_t all = rows_of(e);
    for (int64_t first = 0; first < all; first += kScaleBlock) {
      const int rows = static_cast<int>(all - first < kScaleBlock ? all - first : kScaleBlock), pairs = (rows + 1) / 2;
      // the operand of both: pairs of rows, as in outer.h
      const auto pair_rows = [&](int c0, int c1, Element* to, int64_t pair_step, int64_t apart, int64_t column_step) {
        for (int p = 0; p < pairs; ++p) {
          const float *even = numbers + 2 * p * kFp8Columns, *odd = 2 * p + 1 < rows ? even + kFp8Columns : nullptr;
          for (int c = 0; c < c1 - c0; c += kLanes)
            Mode::take_pair(to + p * pair_step + c / kLanes * column_step, apart, even + c, odd ? odd + c : nullptr, kLanes, false);
        }
      };
      quantise_columns(dy, rows, n0, n1, [&](int r) { return dy_row(e, first + r); }, power_of_two, kFp8Columns, numbers, dy_scales);
      pair_rows(n0, n1, operand, static_cast<int64_t>(Mode::kPerPair) * kFp8Outputs, kFp8Outputs, kLanes);
      quantise_columns(x, rows, k0, k1, [&](int r) { return x_row(e, first + r); }, power_of_two, kFp8Columns, numbers, x_scales);
      pair_rows(k0, k1, panels, Mode::kPerPair * kLanes, kLanes, kPanel);
      const auto add_panels = [&](auto panel_count, int k) {
        constexpr int PANELS = decltype(panel_count)::value;
        const uint8_t* b[PANELS];
        for (int j = 0; j < PANELS; ++j) b[j] = reinterpret_cast<const uint8_t*>(panels + ((k - k0) / kLanes + j) * kPanel);
        each_tile<kProductRows>(n1 - n0, [&](auto tile_rows, int m) {
          constexpr int ROWS = decltype(tile_rows)::value;
          Vec sums[ROWS][PANELS];
          for (auto& row : sums)
            for (Vec& sum : row) sum = zero();
          tile<Mode, Mode::kScratchFormat, ROWS, PANELS>(operand + m, 1, kFp8Outputs, b, 0, pairs, sums);
          for (int i = 0; i < ROWS && m + i < n1 - n0; ++i) {
            for (int j = 0; j < PANELS; ++j) {
              const int c = k + j * kLanes, lanes = k1 - c < kLanes ? k1 - c : kLanes;
              const Vec scale = mul(splat(dy_scales[m + i]), load(x_scales + c - k0));
              float* to = dw.f32(n0 + m + i) + c;
              store_up_to(to, fma(scale, sums[i][j], load_up_to(to, lanes)), lanes);
            }
          }
        });
      };
      int k = k0;
      if constexpr (kProductPanels == 2)
        for (; k + kLanes < k1; k += 2 * kLanes) add_panels(std::integral_constant<int, 2>{}, k);
      for (; k < k1; k += kLanes) add_panels(std::integral_constant<int, 1>{}, k);
    }
  });
}

template <class RowsOf, class DyRow, class XRow>
static void run_fp8_outer(const Op& op, const Context& ctx, const View* gradients, int count, const View* reads, RowsOf rows_of,
                          DyRow dy_row, XRow x_row) {
  const TokenRows dy{reads[0], reads[0]}, x{reads[1], reads[2]};
  const bool power_of_two = op.scalars[0] != 0;
  if (kPairProducts) run_fp8_outer<PairMode>(op, ctx, gradients, count, dy, x, rows_of, dy_row, x_row, power_of_two);
  else run_fp8_outer<FloatMode>(op, ctx, gradients, count, dy, x, rows_of, dy_row, x_row, power_of_two);
}

// [dW] += [dy f32, x codes, x scales] or [dy, x f32, null], scalars: powers of two
static void fp8_outer(const Op& op, const Context& ctx) {
  const int64_t rows = ctx.rows(op.views[1]);
  const auto same = [](int, int64_t r) { return r; };
  run_fp8_outer(op, ctx, &op.views[0], 1, &op.views[1], [&](int) { return rows; }, same, same);
}

// [dW…] += [dy sorted f32, x codes, x scales, order, offsets], scalars: powers of two, topK to gather by or 0, experts
static void fp8_expert_outer(const Op& op, const Context& ctx) {
  const int top_k = op.scalars[1], experts = op.scalars[2];
  const View* reads = &op.views[experts];
  const int32_t *order = reads[3].i32(), *start = reads[4].i32();
  run_fp8_outer(op, ctx, &op.views[0], experts, reads, [&](int e) { return static_cast<int64_t>(start[e + 1] - start[e]); },
                [&](int e, int64_t r) { return start[e] + r; },
                [&](int e, int64_t r) { return top_k ? static_cast<int64_t>(order[start[e] + r] / top_k) : start[e] + r; });
}

#define FP8_KERNELS                                                                                            \
  {"fp8_quantise", fp8_quantise}, {"fp8_restore", fp8_restore}, {"fp8_quantise_weight", fp8_quantise_weight},   \
      {"fp8_linear", fp8_linear}, {"fp8_expert_linear", fp8_expert_linear}, {"fp8_outer", fp8_outer},            \
      {"fp8_expert_outer", fp8_expert_outer},
