// Weight gradients: dW[n, k] += sum over rows r of dy[r, n] · x[r, k].
// Rows are summed in order within fixed chunks, and each chunk is then added to dW. Pairs of rows take the place
// that pairs of k have in a forward product, so the same tile computes them: x becomes panels whose lanes are k,
// dy the broadcast operand. Panels and operand of a chunk stay in the second-level cache with the piece of dW.

constexpr int kOuterRows = 256;                   // rows of a chunk; the order of sums hangs on it
constexpr int kOuterOutputs = 16 * kProductRows;  // n of one piece of work
constexpr int kOuterPanels = 24;                  // most panels of 16 k of one piece of work

constexpr int kPairsAhead = 4;                    // pairs of rows asked for before they are taken

static inline void prefetch_floats(const float* row, int first, int last) {
  for (int c = first; c < last; c += kLanes) __builtin_prefetch(row + c);
}

// A piece of dW: outputs [n0, n1) and columns [k0, k1).
struct OuterPiece {
  const View& dw;
  int n0, n1, k0, k1;
};

// A chunk of rows in the order of the tile. Operand: groups of kProductRows outputs, [group][pair][output].
template <class Mode>
struct OuterChunk {
  using Element = typename Mode::Element;
  static constexpr int kPairs = kOuterRows / 2;
  static constexpr int64_t kGroup = (static_cast<int64_t>(kPairs) * kProductRows + kLanes) * Mode::kPerPair;
  static constexpr int64_t kPanel = (static_cast<int64_t>(kPairs) + 1) * Mode::kPerPair * kLanes;
  static constexpr int64_t kOperand = kGroup * (kOuterOutputs / kProductRows);
  static constexpr int64_t kElements = kOperand + kOuterPanels * kPanel;
  static_assert(kGroup % kLanes == 0);

  Element* operand;
  Element* panels;
  int pairs = 0;

  explicit OuterChunk(Element* memory) : operand(memory), panels(memory + kOperand) {}

  template <class DyRow, class XRow>
  void take(const OuterPiece& piece, int64_t first, int rows, DyRow dy_row, XRow x_row, bool round) {
    pairs = (rows + 1) / 2;
    for (int p = 0; p < pairs; ++p) {
      const int64_t row = first + 2 * p;
      const bool has_odd = 2 * p + 1 < rows;
      const float *dy_even = dy_row(row), *dy_odd = has_odd ? dy_row(row + 1) : nullptr;
      const float *x_even = x_row(row), *x_odd = has_odd ? x_row(row + 1) : nullptr;
      for (int ahead = 2 * kPairsAhead; ahead < 2 * kPairsAhead + 2 && 2 * p + ahead < rows; ++ahead) {
        prefetch_floats(dy_row(row + ahead), piece.n0, piece.n1);
        prefetch_floats(x_row(row + ahead), piece.k0, piece.k1);
      }
      Element* to = operand + static_cast<int64_t>(p) * Mode::kPerPair * kProductRows;
      for (int n = piece.n0; n < piece.n1; n += kProductRows, to += kGroup) {
        const int lanes = piece.n1 - n < kLanes ? piece.n1 - n : kLanes;
        Mode::take_pair(to, kProductRows, dy_even + n, dy_odd ? dy_odd + n : nullptr, lanes, round);
      }
      Element* panel = panels + static_cast<int64_t>(p) * Mode::kPerPair * kLanes;
      for (int k = piece.k0; k < piece.k1; k += kLanes, panel += kPanel) {
        const int lanes = piece.k1 - k < kLanes ? piece.k1 - k : kLanes;
        Mode::take_pair(panel, kLanes, x_even + k, x_odd ? x_odd + k : nullptr, lanes, round);
      }
    }
  }

  // dW += this chunk, for PANELS panels from k on.
  template <int PANELS>
  void add_panels(const OuterPiece& piece, int k) const {
    const uint8_t* b[PANELS];
    for (int j = 0; j < PANELS; ++j) b[j] = reinterpret_cast<const uint8_t*>(panels + ((k - piece.k0) / kLanes + j) * kPanel);
    each_tile<kProductRows>(piece.n1 - piece.n0, [&](auto tile_rows, int m) {
      constexpr int ROWS = decltype(tile_rows)::value;
      const int rows = piece.n1 - piece.n0 - m < ROWS ? piece.n1 - piece.n0 - m : ROWS;
      Vec sums[ROWS][PANELS];
      for (int i = 0; i < ROWS; ++i) {
        for (int j = 0; j < PANELS; ++j) {
          sums[i][j] = zero();
          __builtin_prefetch(piece.dw.f32(piece.n0 + m + i) + k + j * kLanes, 1);
        }
      }
      const Element* a = operand + m / kProductRows * kGroup + m % kProductRows;
      tile<Mode, Mode::kScratchFormat, ROWS, PANELS>(a, 1, kProductRows, b, 0, pairs, sums);
      for (int i = 0; i < rows; ++i) {
        float* to = piece.dw.f32(piece.n0 + m + i) + k;
        for (int j = 0; j < PANELS; ++j, to += kLanes) {
          const int lanes = piece.k1 - k - j * kLanes;
          add_to(to, sums[i][j], lanes < kLanes ? lanes : kLanes);
        }
      }
    });
  }

  void add_to_gradient(const OuterPiece& piece) const {
    int k = piece.k0;
    if constexpr (kProductPanels > 1)
      for (; k + (kProductPanels - 1) * kLanes < piece.k1; k += kProductPanels * kLanes) add_panels<kProductPanels>(piece, k);
    for (; k < piece.k1; k += kLanes) add_panels<1>(piece, k);
  }
};

#if defined(FARTHING_amx)
#include "tiled_outer.h"
#endif

// Splits the gradient matrices into pieces that threads claim. rows_of(e), dy_row(e, r), x_row(e, r).
template <class Mode, class RowsOf, class DyRow, class XRow>
static void run_outer(const Op& op, const Context& ctx, const View* gradients, int count, RowsOf rows_of, DyRow dy_row, XRow x_row,
                      bool round) {
  const int outputs = gradients[0].times, depth = gradients[0].cols;
  const int across = (outputs + kOuterOutputs - 1) / kOuterOutputs;
  int panels = kOuterPanels;
  const auto pieces_along = [&] { return (panels_of(depth) + panels - 1) / panels; };
  while (panels > 8 && static_cast<int64_t>(count) * across * pieces_along() < 4 * ctx.threads) panels -= 8;
  const int along = pieces_along();
  const Tiles tiles(outputs);
  OuterChunk<Mode> chunk(ctx.local<typename Mode::Element>(OuterChunk<Mode>::kElements));
  ctx.parallel(op, static_cast<int64_t>(count) * across * along, 1, [&](int64_t item, int64_t) {
    const int e = static_cast<int>(item / (across * along)), at = static_cast<int>(item % (across * along));
    const int n0 = at / along * kOuterOutputs, k0 = at % along * panels * kLanes;
    const int n1 = n0 + kOuterOutputs, k1 = k0 + panels * kLanes;
    const OuterPiece piece{gradients[e], n0, n1 < outputs ? n1 : outputs, k0, k1 < depth ? k1 : depth};
    const int64_t rows = rows_of(e);
    for (int64_t first = 0; first < rows; first += kOuterRows) {
      const int some = static_cast<int>(rows - first < kOuterRows ? rows - first : kOuterRows);
      chunk.take(piece, first, some, [&](int64_t r) { return dy_row(e, r); }, [&](int64_t r) { return x_row(e, r); }, round);
      chunk.add_to_gradient(piece);
    }
  });
}

template <class RowsOf, class DyRow, class XRow>
static void run_outer(const Op& op, const Context& ctx, const View* gradients, int count, RowsOf rows_of, DyRow dy_row, XRow x_row,
                      bool fast) {
  if (kPairProducts && fast) run_outer<PairMode>(op, ctx, gradients, count, rows_of, dy_row, x_row, true);
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
