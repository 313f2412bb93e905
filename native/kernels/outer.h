// Weight gradients: dW[n, k] += sum over rows r of dy[r, n] · x[r, k], the rows in order.
// Pairs of rows take the place that pairs of k have in a forward product, so the same tile computes them:
// x becomes panels whose lanes are k, dy the broadcast operand.

constexpr int kOuterRows = 256;              // rows taken into scratch together
constexpr int kOuterOutputs = 8 * kProductRows;  // n of one piece of work
constexpr int kOuterPanels = 8;              // panels of 16 k of one piece of work

// One piece of dW: outputs [n0, n1) and columns [k0, k1) over `count` rows; dy_row(r) and x_row(r) point to rows.
template <class Mode, class DyRow, class XRow>
static void outer_piece(const Context& ctx, const View& dw, int n0, int n1, int k0, int k1, int64_t count, DyRow dy_row, XRow x_row,
                        bool round) {
  using Element = typename Mode::Element;
  constexpr DType format = std::is_same_v<Mode, FloatMode> ? DType::PackedF32 : DType::PackedBF16;
  constexpr int kPairs = kOuterRows / 2, kWidth = kOuterOutputs + kLanes;
  constexpr int kElements = Mode::kPerPair * kPairs;  // elements per column of the piece
  auto* a = ctx.local<Element>(static_cast<size_t>(kElements) * (kWidth + kOuterPanels * kLanes));
  auto* panels = reinterpret_cast<uint8_t*>(a + static_cast<size_t>(kElements) * kWidth);
  constexpr int64_t panel_size = static_cast<int64_t>(kElements) * kLanes * sizeof(Element);
  const int panel_count = panels_of(k1 - k0);

  for (int64_t r0 = 0; r0 < count; r0 += kOuterRows) {
    const int rows = static_cast<int>(count - r0 < kOuterRows ? count - r0 : kOuterRows), pairs = (rows + 1) / 2;
    for (int p = 0; p < pairs; ++p) {
      const bool has_odd = 2 * p + 1 < rows;
      const float *dy_even = dy_row(r0 + 2 * p), *dy_odd = has_odd ? dy_row(r0 + 2 * p + 1) : nullptr;
      const float *x_even = x_row(r0 + 2 * p), *x_odd = has_odd ? x_row(r0 + 2 * p + 1) : nullptr;
      Element* a_row = a + static_cast<int64_t>(p) * Mode::kPerPair * kWidth;
      each_vec(n0, n1, [&](int c, int lanes) {
        Mode::take_pair(reinterpret_cast<uint8_t*>(a_row + (c - n0)), kWidth, dy_even + c, dy_odd ? dy_odd + c : nullptr, lanes, round);
      });
      for (int j = 0; j < panel_count; ++j) {
        const int c = k0 + j * kLanes, lanes = k1 - c < kLanes ? k1 - c : kLanes;
        uint8_t* to = panels + j * panel_size + static_cast<int64_t>(p) * Mode::kPerPair * kLanes * sizeof(Element);
        Mode::take_pair(to, kLanes, x_even + c, x_odd ? x_odd + c : nullptr, lanes, round);
      }
    }
    const auto add_panels = [&](auto panels_at_once, int j0) {
      constexpr int PANELS = decltype(panels_at_once)::value;
      const uint8_t* b[PANELS];
      for (int j = 0; j < PANELS; ++j) b[j] = panels + (j0 + j) * panel_size;
      each_tile<kProductRows>(n1 - n0, [&](auto tile_rows, int m) {
        constexpr int ROWS = decltype(tile_rows)::value;
        Vec sums[ROWS][PANELS];
        const auto each = [&](auto body) {
          for (int i = 0; i < ROWS; ++i) {
            for (int j = 0; j < PANELS; ++j) {
              const int c = k0 + (j0 + j) * kLanes;
              body(sums[i][j], dw.f32(n0 + m + i) + c, k1 - c < kLanes ? k1 - c : kLanes);
            }
          }
        };
        each([](Vec& sum, const float* at, int lanes) { sum = load_up_to(at, lanes); });
        tile<Mode, format, ROWS, PANELS>(a + m, 1, kWidth, b, 0, pairs, sums);
        each([](const Vec& sum, float* at, int lanes) { store_up_to(at, sum, lanes); });
      });
    };
    int j = 0;
    for (; j + kProductPanels <= panel_count; j += kProductPanels) add_panels(std::integral_constant<int, kProductPanels>{}, j);
    for (; j < panel_count; ++j) add_panels(std::integral_constant<int, 1>{}, j);
  }
}

// Splits the gradient matrices into pieces that threads claim. rows_of(e), dy_row(e, r), x_row(e, r).
template <class Mode, class RowsOf, class DyRow, class XRow>
static void run_outer(const Op& op, const Context& ctx, const View* gradients, int count, RowsOf rows_of, DyRow dy_row, XRow x_row,
                      bool round) {
  const View& shape = gradients[0];
  const int across = (shape.times + kOuterOutputs - 1) / kOuterOutputs;
  const int along = (shape.cols + kOuterPanels * kLanes - 1) / (kOuterPanels * kLanes);
  ctx.parallel(op, static_cast<int64_t>(count) * across * along, 1, [&](int64_t item, int64_t) {
    const int e = static_cast<int>(item / (across * along)), piece = static_cast<int>(item % (across * along));
    const int64_t rows = rows_of(e);
    if (rows == 0) return;
    const int n0 = piece / along * kOuterOutputs, k0 = piece % along * kOuterPanels * kLanes;
    const int n1 = n0 + kOuterOutputs < shape.times ? n0 + kOuterOutputs : shape.times;
    const int k1 = k0 + kOuterPanels * kLanes < shape.cols ? k0 + kOuterPanels * kLanes : shape.cols;
    outer_piece<Mode>(ctx, gradients[e], n0, n1, k0, k1, rows, [&](int64_t r) { return dy_row(e, r); },
                      [&](int64_t r) { return x_row(e, r); }, round);
  });
}

template <class RowsOf, class DyRow, class XRow>
static void run_outer(const Op& op, const Context& ctx, const View* gradients, int count, RowsOf rows_of, DyRow dy_row, XRow x_row,
                      bool fast) {
  if (kPairDot && fast) run_outer<PairMode>(op, ctx, gradients, count, rows_of, dy_row, x_row, true);
  else run_outer<FloatMode>(op, ctx, gradients, count, rows_of, dy_row, x_row, fast);
}

// [dW] += [dy, x], scalars: fast
static void outer(const Op& op, const Context& ctx) {
  const View &dy = op.views[1], &x = op.views[2];
  const int64_t rows = ctx.rows(dy);
  run_outer(op, ctx, &op.views[0], 1, [&](int) { return rows; }, [&](int, int64_t r) { return dy.f32(r); },
            [&](int, int64_t r) { return x.f32(r); }, op.scalars[0] != 0);
}

// [dW…] += [dy sorted, x, order, offsets], scalars: fast, topK to gather by or 0, experts
static void expert_outer(const Op& op, const Context& ctx) {
  const int top_k = op.scalars[1], experts = op.scalars[2];
  const View* reads = &op.views[experts];
  const View &dy = reads[0], &x = reads[1], &order = reads[2], &offsets = reads[3];
  const int32_t* start = offsets.i32();
  run_outer(op, ctx, &op.views[0], experts, [&](int e) { return static_cast<int64_t>(start[e + 1] - start[e]); },
            [&](int e, int64_t r) { return dy.f32(start[e] + r); },
            [&](int e, int64_t r) { return x.f32(top_k ? order.i32()[start[e] + r] / top_k : start[e] + r); }, op.scalars[0] != 0);
}

#define OUTER_KERNELS {"outer", outer}, {"expert_outer", expert_outer},
