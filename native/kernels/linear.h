// Matrix products with packed weights: plain, per expert and per head. One block of rows times some panels is the
// unit of work; see product.h for the order of sums.

// Most rows whose activations are taken into scratch together, the step in which there may be fewer, and the bytes they
// may take, so that panels find room beside them.
constexpr int kRowsAtOnce = kHasTiles ? 256 : 8 * kProductRows, kRowStep = kHasTiles ? 32 : kProductRows;
constexpr int64_t kBytesOfRows = 512 << 10;

// Up to how many rows memory is waited for, and the panels that are then read side by side.
constexpr int kFewestRows = kHasTiles ? 32 : kStreamRows, kStreamPanels = kHasTiles ? 1 : 4;

// Rows of one product, wherever their outputs lie.
struct RowBlock {
  int count = 0;
  float* out[kRowsAtOnce];
};

struct Finish {
  const float* bias;  // or null
  bool accumulate;
};

// Activations of a block, row by row.
template <class Mode>
struct Activations {
  typename Mode::Element* data;
  int64_t stride;

  // Elements of a row: an odd number of cache lines, lest equal columns of all rows meet in one set of the cache.
  static int64_t stride_for(int depth) {
    constexpr int kLine = 64 / sizeof(typename Mode::Element);
    const int64_t lines = (static_cast<int64_t>(depth) * Mode::kPerPair / 2 + kLine - 1) / kLine;
    return (lines | 1) * kLine;
  }
  static int64_t room(int depth, int rows) { return stride_for(depth) * (rows + kTileOverhang); }
  static Activations of(typename Mode::Element* data, int depth, int) { return {data, stride_for(depth)}; }

  void take(int m, const float* row, int depth, int padded, bool round) const {
    Mode::take_row(data + m * stride, row, depth, padded, round);
  }
};

static inline void write_sums(const RowBlock& rows, int m, int panel, int outputs, Vec sums, const Finish& finish) {
  const int first = panel * kLanes, lanes = outputs - first < kLanes ? outputs - first : kLanes;
  float* to = rows.out[m] + first;
  if (finish.bias) sums = add(sums, load_up_to(finish.bias + first, lanes));
  if (finish.accumulate) sums = add(sums, load_up_to(to, lanes));
  store_up_to(to, sums, lanes);
}

static inline void prefetch_outputs(const RowBlock& rows, int m, int count, int panel, int panels) {
  for (int i = m; i < m + count && i < rows.count; ++i)
    for (int j = 0; j < panels; ++j) __builtin_prefetch(rows.out[i] + (panel + j) * kLanes, 1);
}

// A block of rows times PANELS panels. FP32 and BF16 weights: one chain over all of k. FP8: a chain over each 128 of k,
// scaled by its block, then added (DeepSeek-V3 report §3.3.2). FP4: the same with 16 of k, and all of it scaled at the
// end. Many rows: weights are decoded once, one such part of k at a time.
template <class Mode, DType format, int PANELS>
static void multiply_panels(const Activations<Mode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish) {
  constexpr bool kFours = format == DType::PackedFP4, kScaled = kFours || format == DType::PackedFP8;
  constexpr int kBlockPairs = (kFours ? kFourBlock : kScaleBlock) / 2;
  constexpr bool kMayDecode = format != DType::PackedF32 && format != Mode::kScratchFormat && PANELS <= kProductPanels;
  constexpr int kMostRows = PANELS <= kProductPanels ? kRowsAtOnce + kTileOverhang : kStreamRows;
  using Decoded = Panel<Mode, Mode::kScratchFormat>;
  constexpr int64_t kDecodedBytes = kMayDecode ? Decoded::offset(kBlockPairs) : 64;

  const int pairs = padded_depth(weight) / 2;
  const bool decode = kMayDecode && rows.count > kFewRows;
  const int step = kScaled || decode ? kBlockPairs : pairs;
  const float* scales = kScaled && !kFours ? block_row_scales(weight, panel) : nullptr;
  alignas(64) uint8_t decoded[PANELS][kDecodedBytes];
  Vec totals[kMostRows][PANELS];
  const uint8_t* panels[PANELS];
  for (int first = 0; first < pairs; first += step) {
    const int count = pairs - first < step ? pairs - first : step;
    for (int j = 0; j < PANELS; ++j) {
      panels[j] = panel_of(weight, panel + j) + Panel<Mode, format>::offset(first);
      if constexpr (kMayDecode) {
        if (!decode) continue;
        for (int p = 0; p < count; p += Panel<Mode, format>::kPairsAtOnce)
          Panel<Mode, format>(panels[j] + Panel<Mode, format>::offset(p)).put(decoded[j] + Decoded::offset(p));
        panels[j] = decoded[j];
      }
    }
    Vec scale[PANELS];
    for (int j = 0; j < PANELS; ++j)
      scale[j] = kFours ? load_scales(block_scales(weight, panel + j, first / kBlockPairs)) : splat(kScaled ? scales[first / kBlockPairs] : 1.0f);
    each_tile<PANELS == kProductPanels ? kProductRows : PANELS < kProductPanels ? kFewRows : kStreamRows>(rows.count, [&](auto tile_rows, int m) {
      constexpr int ROWS = decltype(tile_rows)::value;
      if (first + count == pairs) prefetch_outputs(rows, m, ROWS, panel, PANELS);
      const auto* from = a.data + m * a.stride + static_cast<int64_t>(first) * Mode::kPerPair;
      Vec sums[ROWS][PANELS];
      for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < PANELS; ++j) sums[i][j] = kScaled || first == 0 ? zero() : totals[m + i][j];
      if (decode) tile<Mode, kMayDecode ? Mode::kScratchFormat : format, ROWS, PANELS>(from, a.stride, 1, panels, 0, count, sums);
      else tile<Mode, format, ROWS, PANELS>(from, a.stride, 1, panels, 0, count, sums);
      for (int i = 0; i < ROWS; ++i)
        for (int j = 0; j < PANELS; ++j)
          totals[m + i][j] = !kScaled ? sums[i][j] : fma(scale[j], sums[i][j], first == 0 ? zero() : totals[m + i][j]);
    });
  }
  const Vec all = splat(kFours ? *weight.scales : 1.0f);
  for (int m = 0; m < rows.count; ++m)
    for (int j = 0; j < PANELS; ++j)
      write_sums(rows, m, panel + j, weight.times, kFours ? mul(totals[m][j], all) : totals[m][j], finish);
}

template <class Mode, int PANELS>
static inline void multiply_some(const Activations<Mode>& a, const RowBlock& rows, const View& weight, int panel, const Finish& finish) {
  if (weight.dtype == DType::PackedFP4) return multiply_panels<Mode, DType::PackedFP4, PANELS>(a, rows, weight, panel, finish);
  if (weight.dtype == DType::PackedFP8) return multiply_panels<Mode, DType::PackedFP8, PANELS>(a, rows, weight, panel, finish);
  if (weight.dtype == DType::PackedBF16) return multiply_panels<Mode, DType::PackedBF16, PANELS>(a, rows, weight, panel, finish);
  if constexpr (std::is_same_v<Mode, FloatMode>) multiply_panels<Mode, DType::PackedF32, PANELS>(a, rows, weight, panel, finish);
}

// Panels [first, last) of a block of rows. Few rows keep four panels in flight, since then memory is what they wait for.
template <class Mode>
static void multiply(const Activations<Mode>& a, const RowBlock& rows, const View& weight, int first, int last, const Finish& finish,
                     const uint8_t*) {
  int panel = first;
  if (rows.count <= kStreamRows)
    for (; panel + 4 <= last && panel % 4 == 0; panel += 4) multiply_some<Mode, 4>(a, rows, weight, panel, finish);
  if constexpr (kProductPanels == 2)
    for (; panel + 2 <= last && panel % 2 == 0; panel += 2) multiply_some<Mode, 2>(a, rows, weight, panel, finish);
  for (; panel < last; ++panel) multiply_some<Mode, 1>(a, rows, weight, panel, finish);
}

#if defined(FARTHING_amx)
#include "tiled_linear.h"
#endif

// Runs products x blocks of at most `most` rows x chunks of panels on all threads. All products have one shape.
// take(m, product, row) takes a row of a product as row m of a block; run(rows, weight, first, last) multiplies the block by
// panels [first, last). Few blocks: chunks of `chunk` panels, so that all threads have work; many: wider ones while a
// thread has `items` of them, so that rows are taken less often.
template <class Products, class Take, class Run>
static void each_block(const Op& op, const Context& ctx, const Products& products, int most, int chunk, int items, Take take, Run run) {
  const int panels = panels_of(products.weight(0).times);
  const auto blocks_of = [&](int product) { return (products.rows(product) + most - 1) / most; };
  int64_t blocks = 0, most_rows = 0;
  for (int p = 0; p < products.count(); ++p) {
    blocks += blocks_of(p);
    if (products.rows(p) > most_rows) most_rows = products.rows(p);
  }
  if (blocks == 0) return;
  const Tiles tiles(most_rows);
  const auto chunks_of = [&](int width) { return (panels + width - 1) / width; };
  while (chunk < panels && blocks * chunks_of(2 * chunk) >= items * ctx.threads) chunk *= 2;
  const int chunks = chunks_of(chunk);

  RowBlock rows;
  int64_t taken = -1;
  int product = 0;
  int64_t start = 0;  // blocks before this product
  ctx.parallel(op, blocks * chunks, 1, [&](int64_t item, int64_t) {
    const int64_t block = item / chunks;
    const int first = static_cast<int>(item % chunks) * chunk, last = first + chunk < panels ? first + chunk : panels;
    while (block >= start + blocks_of(product)) start += blocks_of(product++);
    if (block != taken) {
      taken = block;
      const int64_t first_row = (block - start) * most, left = products.rows(product) - first_row;
      rows.count = static_cast<int>(left < most ? left : most);
      for (int m = 0; m < rows.count; ++m) {
        rows.out[m] = products.out(product, first_row + m);
        take(m, product, first_row + m);
      }
    }
    run(rows, products.weight(product), first, last);
  });
}

// Products of few rows, at most a block each. Then memory is what threads wait for, and it is read fastest as one stream:
// so a thread has one share of all panels, in whole groups of kStreamPanels.
template <class Products>
struct Shares {
  const Products& products;
  const int panels = panels_of(products.weight(0).times), groups = (panels + kStreamPanels - 1) / kStreamPanels;
  int64_t first, last;  // this thread's groups among those of all products that have rows

  Shares(const Context& ctx, const Products& of) : products(of) {
    int64_t all = 0;
    for (int p = 0; p < products.count(); ++p) all += products.rows(p) > 0 ? groups : 0;
    first = all * ctx.thread / ctx.threads, last = all * (ctx.thread + 1) / ctx.threads;
  }

  // Calls use(product, first panel, last panel) in order.
  template <class Use>
  void each(Use use) const {
    int64_t start = 0;
    for (int p = 0; start < last; ++p) {
      if (products.rows(p) == 0) continue;
      const int64_t from = first > start ? (first - start) * kStreamPanels : 0, to = (last - start) * kStreamPanels;
      start += groups;
      if (from < panels) use(p, static_cast<int>(from), static_cast<int>(to < panels ? to : panels));
    }
  }

  // Where the first one begins.
  const uint8_t* begin() const {
    const uint8_t* at = nullptr;
    each([&](int p, int from, int) { at = at ? at : panel_of(products.weight(p), from); });
    return at;
  }
};

template <class Products>
static int64_t most_rows(const Products& products) {
  int64_t most = 0;
  for (int p = 0; p < products.count(); ++p) most = products.rows(p) > most ? products.rows(p) : most;
  return most;
}

template <class Products>
static const uint8_t* stream_begin(const Context& ctx, const Products& products) {
  return most_rows(products) <= kFewestRows ? Shares(ctx, products).begin() : nullptr;
}

// take(m, product, row) takes a row of a product as row m; run(rows, weight, first, last, after) multiplies by panels
// [first, last), and what lies at `after` is read next.
template <class Products, class Take, class Run>
static void each_share(const Op& op, const Context& ctx, const Products& products, Take take, Run run) {
  const Shares shares(ctx, products);
  if (shares.first == shares.last) return;
  const Tiles tiles(most_rows(products));
  RowBlock rows;
  struct {
    int product, first, last;
  } waiting{-1, 0, 0};
  const auto run_waiting = [&](const uint8_t* after) {
    const auto [p, first, last] = waiting;
    if (p < 0) return;
    rows.count = static_cast<int>(products.rows(p));
    for (int m = 0; m < rows.count; ++m) {
      rows.out[m] = products.out(p, m);
      take(m, p, m);
    }
    const View& weight = products.weight(p);
    run(rows, weight, first, last, after ? after : panel_of(weight, last));
  };
  shares.each([&](int p, int first, int last) {
    run_waiting(panel_of(products.weight(p), first));
    waiting = {p, first, last};
  });
  run_waiting(ctx.reader ? ctx.reader->reading(*ctx.reader, ctx, op) : nullptr);
}

template <class Mode, class Products>
static void run_products(const Op& op, const Context& ctx, const Products& products, const Finish& finish, bool round) {
  const View& shape = products.weight(0);
  const int padded = padded_depth(shape);
  const int64_t row = Activations<Mode>::stride_for(padded);
  const int64_t fitting = kBytesOfRows / (row * static_cast<int64_t>(sizeof(typename Mode::Element))) / kRowStep * kRowStep;
  const int most = fitting > kRowsAtOnce ? kRowsAtOnce : fitting < kRowStep ? kRowStep : static_cast<int>(fitting);
  const auto a = Activations<Mode>::of(ctx.local<typename Mode::Element>(Activations<Mode>::room(padded, most)), padded, most);
  const auto take = [&](int m, int product, int64_t from) { a.take(m, products.in(product, from), shape.cols, padded, round); };
  const auto run = [&](const RowBlock& rows, const View& weight, int first, int last, const uint8_t* after) {
    multiply(a, rows, weight, first, last, finish, after);
  };
  if (most_rows(products) <= kFewestRows) return each_share(op, ctx, products, take, run);
  each_block(op, ctx, products, most, 4, 4, take, [&](const RowBlock& rows, const View& weight, int first, int last) {
    run(rows, weight, first, last, panel_of(weight, last));
  });
}

template <class Products>
static void run_products(const Op& op, const Context& ctx, const Products& products, const Finish& finish, bool fast) {
  const bool round = fast && products.weight(0).dtype != DType::PackedF32;
#if defined(FARTHING_amx)
  // the scales of FP4 change too often for tiles
  if (round && products.weight(0).dtype != DType::PackedFP4) return run_products<TileMode>(op, ctx, products, finish, true);
#endif
  if (kPairProducts && round) run_products<PairMode>(op, ctx, products, finish, true);
  else run_products<FloatMode>(op, ctx, products, finish, round);
}

struct OneProduct {
  const View &y, &x, &w;
  int64_t all_rows;
  OneProduct(const Op& op, const Context& ctx) : y(op.views[0]), x(op.views[1]), w(op.views[2]), all_rows(ctx.rows(y)) {}
  int count() const { return 1; }
  int64_t rows(int) const { return all_rows; }
  const View& weight(int) const { return w; }
  const float* in(int, int64_t row) const { return x.f32(row); }
  float* out(int, int64_t row) const { return y.f32(row); }
};

// [y] <- [x, weight, bias | null], scalars: fast, accumulate
static void linear(const Op& op, const Context& ctx) {
  const Finish finish{static_cast<const float*>(op.views[3].data), op.scalars[1] != 0};
  run_products(op, ctx, OneProduct(op, ctx), finish, op.scalars[0] != 0);
}
static const uint8_t* linear_reading(const Op& op, const Context& ctx, const Op&) { return stream_begin(ctx, OneProduct(op, ctx)); }

// Sorted places of an expert; their rows are gathered by token, or lie sorted already (top_k 0).
struct ExpertProducts {
  const View &y, &x, *weights;
  const int32_t *order, *offsets;
  int experts, top_k;
  explicit ExpertProducts(const Op& op)
      : y(op.views[0]), x(op.views[1]), weights(&op.views[4]), order(op.views[2].i32()), offsets(op.views[3].i32()),
        experts(op.views[3].times - 1), top_k(static_cast<int>(op.scalars[1])) {}
  int count() const { return experts; }
  int64_t rows(int expert) const { return offsets[expert + 1] - offsets[expert]; }
  const View& weight(int expert) const { return weights[expert]; }
  const float* in(int expert, int64_t row) const {
    const int64_t place = offsets[expert] + row;
    return x.f32(top_k ? order[place] / top_k : place);
  }
  float* out(int expert, int64_t row) const { return y.f32(offsets[expert] + row); }
};

// [y sorted] <- [x, order, offsets, weights…], scalars: fast, topK to gather by or 0, accumulate
static void expert_linear(const Op& op, const Context& ctx) {
  run_products(op, ctx, ExpertProducts(op), Finish{nullptr, op.scalars[2] != 0}, op.scalars[0] != 0);
}
// Which experts have rows is known while others of theirs are multiplied.
static const uint8_t* expert_reading(const Op& op, const Context& ctx, const Op& present) {
  const bool known = present.kernel == expert_linear && present.views[3].data == op.views[3].data;
  return known ? stream_begin(ctx, ExpertProducts(op)) : nullptr;
}

struct HeadProducts {
  const View &y, &x, *weights;
  int64_t all_rows;
  int heads, head_dim, offset;
  HeadProducts(const Op& op, const Context& ctx)
      : y(op.views[0]), x(op.views[1]), weights(&op.views[2]), all_rows(ctx.rows(y)), heads(static_cast<int>(op.views.size()) - 2),
        head_dim(static_cast<int>(op.scalars[1])), offset(static_cast<int>(op.scalars[2])) {}
  int count() const { return heads; }
  int64_t rows(int) const { return all_rows; }
  const View& weight(int head) const { return weights[head]; }
  const float* in(int head, int64_t row) const { return x.f32(row) + head * head_dim + offset; }
  float* out(int head, int64_t row) const { return y.f32(row) + head * weights[0].times; }
};

// [y] <- [x, weights…], scalars: fast, headDim, offset
static void head_linear(const Op& op, const Context& ctx) {
  run_products(op, ctx, HeadProducts(op, ctx), Finish{nullptr, false}, op.scalars[0] != 0);
}
static const uint8_t* head_reading(const Op& op, const Context& ctx, const Op&) { return stream_begin(ctx, HeadProducts(op, ctx)); }

#define LINEAR_KERNELS                                                                   \
  {"linear", linear, linear_reading}, {"expert_linear", expert_linear, expert_reading},  \
      {"head_linear", head_linear, head_reading}, OUTER_KERNELS
