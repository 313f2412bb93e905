// Matrix products with packed weights: plain, per expert and per head. One block of rows times some panels is the
// unit of work; see product.h for the order of sums.

constexpr int kRowsAtOnce = 8 * kProductRows;  // rows whose activations are taken into scratch together
constexpr int kFewRows = 4;                // up to here FP8 is decoded in registers, above into scratch once per block

// RowBlock of one product, wherever they lie.
struct RowBlock {
  int count;
  const float* in[kRowsAtOnce];
  float* out[kRowsAtOnce];
};

struct Finish {
  const float* bias;  // or null
  bool accumulate;
};

static inline void prefetch_outputs(const RowBlock& rows, int m, int count, int first, int panels) {
  for (int i = 0; i < count; ++i)
    for (int j = 0; j < panels; ++j) __builtin_prefetch(rows.out[m + i] + (first + j) * kLanes, 1);
}

static inline void write_sums(const RowBlock& rows, int m, int panel, int outputs, Vec sums, const Finish& finish) {
  const int first = panel * kLanes, lanes = outputs - first < kLanes ? outputs - first : kLanes;
  float* to = rows.out[m] + first;
  if (finish.bias) sums = add(sums, load_up_to(finish.bias + first, lanes));
  if (finish.accumulate) sums = add(sums, load_up_to(to, lanes));
  store_up_to(to, sums, lanes);
}

// FP32 or BF16 weights: one chain over all of k.
template <class Mode, DType format, int PANELS>
static void multiply_panels(const typename Mode::Element* a, int64_t stride, const RowBlock& rows, const View& weight, int panel,
                            const Finish& finish) {
  const uint8_t* panels[PANELS];
  for (int j = 0; j < PANELS; ++j) panels[j] = panel_of(weight, panel + j);
  each_tile<PANELS == kProductPanels ? kProductRows : 1>(rows.count, [&](auto tile_rows, int m) {
    constexpr int ROWS = decltype(tile_rows)::value;
    Vec sums[ROWS][PANELS];
    for (auto& row : sums)
      for (Vec& sum : row) sum = zero();
    prefetch_outputs(rows, m, ROWS, panel, PANELS);
    tile<Mode, format, ROWS, PANELS>(a + m * stride, stride, 1, panels, 0, pairs_of(weight.cols), sums);
    for (int i = 0; i < ROWS; ++i)
      for (int j = 0; j < PANELS; ++j) write_sums(rows, m + i, panel + j, weight.times, sums[i][j], finish);
  });
}

// FP8 weights: a chain over each 128 of k, scaled by its block, then added (DeepSeek-V3 report §3.3.2).
template <class Mode, int PANELS>
static void multiply_fp8_panels(const typename Mode::Element* a, int64_t stride, const RowBlock& rows, const View& weight, int panel,
                                const Finish& finish) {
  constexpr int kPairs = kScaleBlock / 2;
  const int pairs = pairs_of(weight.cols), blocks = (weight.cols + kScaleBlock - 1) / kScaleBlock;
  const float* scales = weight.scales + static_cast<int64_t>(panel * kLanes / kScaleBlock) * blocks;
  alignas(64) uint8_t decoded[PANELS][kPairs * 4 * kLanes];
  Vec totals[kRowsAtOnce][PANELS];
  for (int m = 0; m < rows.count; ++m)
    for (Vec& total : totals[m]) total = zero();
  const bool decode = rows.count > kFewRows;
  for (int block = 0; block < blocks; ++block) {
    const int first = block * kPairs, count = pairs - first < kPairs ? pairs - first : kPairs;
    const uint8_t* panels[PANELS];
    for (int j = 0; j < PANELS; ++j) {
      const uint8_t* stored = panel_of(weight, panel + j) + first * 2 * kLanes;
      panels[j] = decode ? decoded[j] : stored;
      if (decode)
        for (int p = 0; p < count; ++p) store_bits(decoded[j] + p * 4 * kLanes, bits_of_fp8(stored + p * 2 * kLanes));
    }
    const Vec scale = splat(scales[block]);
    const auto* from = a + static_cast<int64_t>(first) * Mode::kPerPair;
    each_tile<PANELS == kProductPanels ? kProductRows : 1>(rows.count, [&](auto tile_rows, int m) {
      constexpr int ROWS = decltype(tile_rows)::value;
      Vec sums[ROWS][PANELS];
      for (auto& row : sums)
        for (Vec& sum : row) sum = zero();
      if (decode) tile<Mode, DType::PackedBF16, ROWS, PANELS>(from + m * stride, stride, 1, panels, 0, count, sums);
      else tile<Mode, DType::PackedFP8, ROWS, PANELS>(from + m * stride, stride, 1, panels, 0, count, sums);
      for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < PANELS; ++j) totals[m + i][j] = fma(scale, sums[i][j], totals[m + i][j]);
    });
  }
  for (int m = 0; m < rows.count; ++m)
    for (int j = 0; j < PANELS; ++j) write_sums(rows, m, panel + j, weight.times, totals[m][j], finish);
}

template <class Mode, int PANELS>
static inline void multiply_some(const typename Mode::Element* a, int64_t stride, const RowBlock& rows, const View& weight, int panel,
                                 const Finish& finish) {
  if (weight.dtype == DType::PackedFP8) return multiply_fp8_panels<Mode, PANELS>(a, stride, rows, weight, panel, finish);
  if (weight.dtype == DType::PackedBF16)
    return multiply_panels<Mode, DType::PackedBF16, PANELS>(a, stride, rows, weight, panel, finish);
  if constexpr (std::is_same_v<Mode, FloatMode>)
    multiply_panels<Mode, DType::PackedF32, PANELS>(a, stride, rows, weight, panel, finish);
}

// Panels [first, last) of a block of rows whose activations are already in scratch. One row keeps four panels in
// flight, since then memory is what it waits for.
template <class Mode>
static void multiply(const typename Mode::Element* a, int64_t stride, const RowBlock& rows, const View& weight, int first, int last,
                     const Finish& finish) {
  int panel = first;
  if (rows.count == 1)
    for (; panel + 4 <= last && panel % 4 == 0; panel += 4) multiply_some<Mode, 4>(a, stride, rows, weight, panel, finish);
  if constexpr (kProductPanels == 2)
    for (; panel + 2 <= last && panel % 2 == 0; panel += 2) multiply_some<Mode, 2>(a, stride, rows, weight, panel, finish);
  for (; panel < last; ++panel) multiply_some<Mode, 1>(a, stride, rows, weight, panel, finish);
}

// One product among several of the same shape: rows [first_row, first_row + rows) in the order of the op.
struct Part {
  const View* weight;
  int64_t first_row;
  int64_t rows;
};

// Runs parts x blocks of rows x chunks of panels on all threads. place(part, row, in, out) says where a row lies.
template <class Mode, class Locate>
static void run_products(const Op& op, const Context& ctx, const Part* parts, int count, const Finish& finish, bool round,
                         Locate locate) {
  if (count == 0) return;
  const int depth = parts[0].weight->cols, panels = panels_of(parts[0].weight->times);
  const int64_t stride = static_cast<int64_t>(pairs_of(depth)) * Mode::kPerPair;
  int64_t blocks = 0;
  for (int p = 0; p < count; ++p) blocks += (parts[p].rows + kRowsAtOnce - 1) / kRowsAtOnce;
  if (blocks == 0) return;
  // few blocks: small chunks, so that all threads have work; many: whole rows, so that activations are taken once
  int chunk = 4;
  while (chunk < panels && blocks * ((panels + chunk - 1) / chunk) > 8 * ctx.threads) chunk *= 2;
  const int chunks = (panels + chunk - 1) / chunk;

  auto* a = ctx.local<typename Mode::Element>(stride * kRowsAtOnce);
  RowBlock rows{};
  int64_t taken = -1;
  int part = 0;
  int64_t part_start = 0;  // blocks before this part
  ctx.parallel(op, blocks * chunks, 1, [&](int64_t item, int64_t) {
    const int64_t block = item / chunks;
    const int first = static_cast<int>(item % chunks) * chunk, last = first + chunk < panels ? first + chunk : panels;
    const auto blocks_of = [&](int p) { return (parts[p].rows + kRowsAtOnce - 1) / kRowsAtOnce; };
    while (block >= part_start + blocks_of(part)) part_start += blocks_of(part++);
    if (block != taken) {
      taken = block;
      const int64_t first_row = (block - part_start) * kRowsAtOnce;
      rows.count = static_cast<int>(parts[part].rows - first_row < kRowsAtOnce ? parts[part].rows - first_row : kRowsAtOnce);
      for (int m = 0; m < rows.count; ++m) {
        locate(part, parts[part].first_row + first_row + m, rows.in[m], rows.out[m]);
        Mode::take_row(a + m * stride, rows.in[m], depth, round);
      }
    }
    multiply<Mode>(a, stride, rows, *parts[part].weight, first, last, finish);
  });
}

template <class Locate>
static void run_products(const Op& op, const Context& ctx, const Part* parts, int count, const Finish& finish, bool fast,
                         Locate locate) {
  const bool round = fast && count > 0 && parts[0].weight->dtype != DType::PackedF32;
  if (kPairDot && round) run_products<PairMode>(op, ctx, parts, count, finish, true, locate);
  else run_products<FloatMode>(op, ctx, parts, count, finish, round, locate);
}

// [y] <- [x, weight, bias | null], scalars: fast, accumulate
static void linear(const Op& op, const Context& ctx) {
  const View &y = op.views[0], &x = op.views[1], &weight = op.views[2], &bias = op.views[3];
  const Part part{&weight, 0, ctx.rows(y)};
  const Finish finish{static_cast<const float*>(bias.data), op.scalars[1] != 0};
  run_products(op, ctx, &part, 1, finish, op.scalars[0] != 0, [&](int, int64_t row, const float*& in, float*& out) {
    in = x.f32(row);
    out = y.f32(row);
  });
}

// [y sorted] <- [x, order, offsets, weights…], scalars: fast, topK to gather by or 0, accumulate
static void expert_linear(const Op& op, const Context& ctx) {
  const View &y = op.views[0], &x = op.views[1], &order = op.views[2], &offsets = op.views[3];
  const int top_k = op.scalars[1], experts = offsets.times - 1;
  std::vector<Part> parts;
  parts.reserve(experts);
  for (int e = 0; e < experts; ++e) {
    const int32_t first = offsets.i32()[e], last = offsets.i32()[e + 1];
    if (last > first) parts.push_back({&op.views[4 + e], first, last - first});
  }
  const Finish finish{nullptr, op.scalars[2] != 0};
  run_products(op, ctx, parts.data(), static_cast<int>(parts.size()), finish, op.scalars[0] != 0,
               [&](int, int64_t row, const float*& in, float*& out) {
                 in = x.f32(top_k ? order.i32()[row] / top_k : row);
                 out = y.f32(row);
               });
}

// [y] <- [x, weights…], scalars: fast, headDim, offset
static void head_linear(const Op& op, const Context& ctx) {
  const View &y = op.views[0], &x = op.views[1];
  const int heads = static_cast<int>(op.views.size()) - 2, head_dim = op.scalars[1], offset = op.scalars[2];
  std::vector<Part> parts;
  parts.reserve(heads);
  for (int h = 0; h < heads; ++h) parts.push_back({&op.views[2 + h], 0, ctx.rows(y)});
  run_products(op, ctx, parts.data(), heads, Finish{nullptr, false}, op.scalars[0] != 0,
               [&](int head, int64_t row, const float*& in, float*& out) {
                 in = x.f32(row) + head * head_dim + offset;
                 out = y.f32(row) + head * op.views[2].times;
               });
}

#define LINEAR_KERNELS {"linear", linear}, {"expert_linear", expert_linear}, {"head_linear", head_linear}, OUTER_KERNELS
