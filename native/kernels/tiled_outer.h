// The weight gradients of outer.h on matrix tiles: outputs n are rows of a tile, pairs of rows r its depth, and what is
// summed is dW itself, one step of 32 rows after the other.

template <>
struct OuterChunk<PairMode> {
  static constexpr int kSteps = kOuterRows / 2 / kTilePairs;
  static constexpr int64_t kStrip = static_cast<int64_t>(kSteps) * kTileBytes / sizeof(Pair);  // 16 outputs, or 16 k
  static constexpr int64_t kOperand = kOuterOutputs / kLanes * kStrip;
  static constexpr int64_t kElements = kOperand + kOuterPanels * kStrip;

  Pair* operand;  // [strip][step] tiles of 16 outputs x 16 pairs of rows
  Pair* panels;   // [strip][step] tiles of 16 pairs of rows x 16 k
  int steps = 0;

  explicit OuterChunk(Pair* memory) : operand(memory), panels(memory + kOperand) {}

  template <class DyRow, class XRow>
  void take(const OuterPiece& piece, int64_t first, int rows, DyRow dy_row, XRow x_row, bool) {
    steps = (rows + 2 * kTilePairs - 1) / (2 * kTilePairs);
    for (int s = 0; s < steps; ++s) {
      const float *dy[2 * kTilePairs], *x[2 * kTilePairs];
      for (int i = 0; i < 2 * kTilePairs; ++i) {
        const int r = s * 2 * kTilePairs + i;
        dy[i] = r < rows ? dy_row(first + r) : nullptr;
        x[i] = r < rows ? x_row(first + r) : nullptr;
      }
      Pair* to = operand + s * kTileBytes / sizeof(Pair);
      for (int n = piece.n0; n < piece.n1; n += kLanes, to += kStrip) {
        PairVec block[kTilePairs];
        take_pairs(block, dy, n, piece.n1);
        transpose(block);
        for (int i = 0; i < kTilePairs; ++i) store(to + i * kLanes, block[i]);
      }
      to = panels + s * kTileBytes / sizeof(Pair);
      for (int k = piece.k0; k < piece.k1; k += kLanes, to += kStrip) {
        PairVec block[kTilePairs];
        take_pairs(block, x, k, piece.k1);
        for (int i = 0; i < kTilePairs; ++i) store(to + i * kLanes, block[i]);
      }
    }
  }

  // dW += this chunk
  void add_to_gradient(const OuterPiece& piece) const {
    constexpr int kPair = 2 * kLanes;
    for (int n = piece.n0; n < piece.n1; n += kPair) {
      for (int k = piece.k0; k < piece.k1; k += kPair) {
        const bool two_rows = n + kLanes < piece.n1, two_columns = k + kLanes < piece.k1;
        if (two_rows && two_columns) add_tiles<2, 2>(piece, n, k);
        else if (two_rows) add_tiles<2, 1>(piece, n, k);
        else if (two_columns) add_tiles<1, 2>(piece, n, k);
        else add_tiles<1, 1>(piece, n, k);
      }
    }
  }

 private:
  // 16 pairs of rows at 16 columns from `first` on, zero beyond the rows and from column `end` on.
  static void take_pairs(PairVec (&block)[kTilePairs], const float* const (&rows)[2 * kTilePairs], int first, int end) {
    const int lanes = end - first < kLanes ? end - first : kLanes;
    for (int i = 0; i < kTilePairs; ++i) {
      const float *even = rows[2 * i], *odd = rows[2 * i + 1];
      block[i] = to_pairs(even ? load_up_to(even + first, lanes) : zero(), odd ? load_up_to(odd + first, lanes) : zero());
    }
  }

  template <int ROWS, int COLUMNS>
  void add_tiles(const OuterPiece& piece, int n, int k) const {
    const View& dw = piece.dw;
    const int outputs = piece.n1 - n, columns = piece.k1 - k;
    const bool inside = outputs >= ROWS * kLanes && columns >= COLUMNS * kLanes;
    constexpr int kWidth = COLUMNS * kLanes;
    alignas(64) float edge[ROWS * kLanes * kWidth];
    const auto each_edge_vec = [&](auto use) {
      for (int i = 0; i < outputs && i < ROWS * kLanes; ++i)
        each_vec(0, columns < kWidth ? columns : kWidth, [&](int c, int lanes) { use(dw.f32(n + i) + k + c, edge + i * kWidth + c, lanes); });
    };
    if (!inside) clear(edge, ROWS * kLanes * kWidth);
    if (!inside) each_edge_vec([](const float* from, float* to, int lanes) { store(to, load_up_to(from, lanes)); });
    float* sums = inside ? dw.f32(n) + k : edge;
    const int64_t stride = inside ? dw.stride : kWidth;
    load_tiles<ROWS, COLUMNS>(sums, stride);
    if (inside)  // what comes next
      for (int i = 0; i < ROWS * kLanes; ++i)
        for (int j = 0; j < COLUMNS; ++j) __builtin_prefetch(sums + i * stride + kWidth + j * kLanes, 1);
    const uint8_t* b[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) b[j] = reinterpret_cast<const uint8_t*>(panels + ((k - piece.k0) / kLanes + j) * kStrip);
    const Pair* a = operand + (n - piece.n0) / kLanes * kStrip;
    tile_steps<ROWS, COLUMNS>(a, kLanes, kStrip, kTileBytes / sizeof(Pair), b, steps);
    store_tiles<ROWS, COLUMNS>(sums, stride);
    if (!inside) each_edge_vec([](float* to, const float* from, int lanes) { store_up_to(to, load(from), lanes); });
  }
};
