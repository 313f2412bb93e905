// Weight gradients of FP8 training, dW[n, k] += sum over rows r of dy[r, n] · x[r, k] in tiles of 128 rows: both operands are
// quantised again in tiles that run along the rows, once (fp8_turn), and sums over a tile are scaled and added to dW.
//
// A turned operand: tiles of an expert's rows (or of all rows) one after the other, [tile][strip of 16 columns][pair of
// rows][16 columns] as bf16 pairs, zero beyond the rows; and one scale a tile and column. On matrix tiles the operand
// whose columns become rows of dW lies transposed, in steps of 16 columns x 16 pairs.

constexpr int kStripPairs = kScaleBlock / 2 * kLanes;

struct TurnedTiles {
  const View &numbers, &scales;
  int strips() const { return numbers.cols / kLanes; }
  Pair* strip(int64_t tile, int strip) const {
    return reinterpret_cast<Pair*>(numbers.bf16()) + (tile * strips() + strip) * kStripPairs;
  }
  float* scale(int64_t tile) const { return scales.f32(tile); }
};

// Tiles of rows [first row, last row) that belong together, by expert or, without offsets, all at once.
struct TileSpans {
  const View& offsets;
  int64_t all;
  int count() const { return offsets.data ? offsets.times - 1 : 1; }
  int64_t begin(int e) const { return offsets.data ? offsets.i32()[e] : 0; }
  int64_t rows(int e) const { return offsets.data ? offsets.i32()[e + 1] - offsets.i32()[e] : all; }
  int64_t tiles(int e) const { return (rows(e) + kScaleBlock - 1) / kScaleBlock; }
  int64_t tiles_before(int e) const {
    int64_t sum = 0;
    for (int i = 0; i < e; ++i) sum += tiles(i);
    return sum;
  }
};

constexpr int kTurnedColumns = 4 * kLanes;  // of one piece of work

// [numbers bf16, scales f32] <- [f32 values or codes, scales | null, order | null, offsets | null], scalars: powers of two,
// whether the columns become rows of dW, rows in all, topK to gather by or 0
static void fp8_turn(const Op& op, const Context& ctx) {
  const TurnedTiles to{op.views[0], op.views[1]};
  const View &values = op.views[2], &scales = op.views[3], &order = op.views[4];
  const bool power_of_two = op.scalars[0] != 0, transposed = kHasTiles && op.scalars[1] != 0;
  const TileSpans spans{op.views[5], static_cast<int64_t>(op.scalars[2])};
  const int top_k = static_cast<int>(op.scalars[3]), across = (values.cols + kTurnedColumns - 1) / kTurnedColumns;
  float* numbers = ctx.local<float>(kScaleBlock * kTurnedColumns);
  int e = 0;
  int64_t before = 0;  // tiles of the spans before e
  ctx.parallel(op, spans.tiles_before(spans.count()) * across, 1, [&](int64_t item, int64_t) {
    const int64_t tile = item / across;
    while (tile >= before + spans.tiles(e)) before += spans.tiles(e++);
    const int64_t first = (tile - before) * kScaleBlock, left = spans.rows(e) - first;
    const int rows = static_cast<int>(left < kScaleBlock ? left : kScaleBlock);
    const int c0 = static_cast<int>(item % across) * kTurnedColumns, c1 = c0 + kTurnedColumns < values.cols ? c0 + kTurnedColumns : values.cols;
    constexpr int kVecs = kTurnedColumns / kLanes;
    Vec most[kVecs];
    for (Vec& each : most) each = zero();
    for (int r = 0; r < rows; ++r) {
      const int64_t place = spans.begin(e) + first + r, row = top_k ? order.i32()[place] / top_k : place;
      float* out = numbers + r * kTurnedColumns;
      if (values.dtype != DType::FP8) {
        for (int j = 0; j < kVecs; ++j) {
          const int lanes = c1 - c0 - j * kLanes;
          store(out + j * kLanes, lanes > 0 ? load_up_to(values.f32(row) + c0 + j * kLanes, lanes < kLanes ? lanes : kLanes) : zero());
        }
      } else {
        const Vec scale = splat(scales.f32(row)[c0 / kScaleBlock]);
        for (int j = 0; j < kVecs; ++j) {
          const int lanes = c1 - c0 - j * kLanes;
          const uint8_t* codes = values.u8(row) + c0 + j * kLanes;
          store(out + j * kLanes, lanes > 0 ? mul(load_e4m3_up_to(codes, lanes < kLanes ? lanes : kLanes), scale) : zero());
        }
      }
      for (int j = 0; j < kVecs; ++j) most[j] = max(most[j], magnitude(load(out + j * kLanes)));
    }
    for (int j = 0; j < kVecs && c0 + j * kLanes < c1; ++j) {
      const int strip = c0 / kLanes + j;
      float* scale = to.scale(tile) + strip * kLanes;
      store(scale, most[j]);
      for (int lane = 0; lane < kLanes; ++lane) scale[lane] = e4m3_scale(scale[lane], power_of_two);
      const Divisor divisor(load(scale));
      const float* from = numbers + j * kLanes;
      const auto pair = [&](int p) {
        const auto number = [&](int r) { return r < rows ? round_to_e4m3(divisor.divide(load(from + r * kTurnedColumns))) : zero(); };
        return exact_pairs(number(2 * p), number(2 * p + 1));
      };
      Pair* out = to.strip(tile, strip);
      for (int p = 0; p < kScaleBlock / 2; p += kLanes, out += kLanes * kLanes) {
        PairVec block[kLanes];
        for (int i = 0; i < kLanes; ++i) block[i] = pair(p + i);
        if (transposed) transpose(block);
        for (int i = 0; i < kLanes; ++i) store(out + i * kLanes, block[i]);
      }
    }
  });
}

// A square of dW that is summed over some tiles at a time, and the tiles, so that operands are read from near caches.
constexpr int kFp8Square = 64, kFp8Tiles = 4;

struct Fp8Gradient {
  const View& dw;
  TurnedTiles dy, x;

  // sums[i][j] of a tile of 128 rows -> dW, for strips n.. and k..
  template <int ROWS, int COLUMNS>
  void promote(int64_t t, int n, int k, const float* sums) const {
    const float *dy_scale = dy.scale(t) + n, *x_scale = x.scale(t) + k;
    Vec column_scale[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) column_scale[j] = load(x_scale + j * kLanes);
    for (int i = 0; i < ROWS * kLanes && n + i < dw.times; ++i) {
      const Vec row_scale = splat(dy_scale[i]);
      for (int j = 0; j < COLUMNS; ++j) {
        const int c = k + j * kLanes, lanes = dw.cols - c < kLanes ? dw.cols - c : kLanes;
        float* to = dw.f32(n + i) + c;
        const Vec sum = load(sums + (i * COLUMNS + j) * kLanes);
        store_up_to(to, fma(mul(row_scale, column_scale[j]), sum, load_up_to(to, lanes)), lanes);
      }
    }
  }

  // dW[n.., k..] += tile, of ROWS x COLUMNS strips
  template <int ROWS, int COLUMNS>
  void add(int64_t t, int n, int k) const {
    alignas(64) float sums[ROWS * kLanes * COLUMNS * kLanes];
    const Pair* a = dy.strip(t, n / kLanes);
    const uint8_t* b[COLUMNS];
    for (int j = 0; j < COLUMNS; ++j) b[j] = reinterpret_cast<const uint8_t*>(x.strip(t, k / kLanes + j));
#if defined(FARTHING_amx)
    clear_tiles<ROWS, COLUMNS>();
    tile_steps<ROWS, COLUMNS>(a, kLanes, kStripPairs, kTileBytes / sizeof(Pair), b, kScaleBlock / 2 / kTilePairs);
    store_tiles<ROWS, COLUMNS>(sums, COLUMNS * kLanes);
#else
    constexpr int kMost = kProductRows < 8 ? kProductRows : 8;
    for (int s = 0; s < ROWS; ++s) {
      alignas(64) Fp8Mode::Element operand[kStripPairs * Fp8Mode::kPerPair];
      const Pair* pairs = a + s * kStripPairs;
      for (int p = 0; p < kScaleBlock / 2; ++p)
        Fp8Mode::put(reinterpret_cast<uint8_t*>(operand + p * kLanes * Fp8Mode::kPerPair), Fp8Mode::weights(load(pairs + p * kLanes)));
      for (int i = 0; i < kLanes; i += kMost) {
        Vec some[kMost][COLUMNS];
        for (auto& row : some)
          for (Vec& sum : row) sum = zero();
        tile<Fp8Mode, DType::PackedBF16, kMost, COLUMNS>(operand + i, 1, kLanes, b, 0, kScaleBlock / 2, some);
        for (int r = 0; r < kMost; ++r)
          for (int j = 0; j < COLUMNS; ++j) store(sums + ((s * kLanes + i + r) * COLUMNS + j) * kLanes, some[r][j]);
      }
    }
#endif
    promote<ROWS, COLUMNS>(t, n, k, sums);
  }

  void add_square(int64_t tile, int n0, int n1, int k0, int k1) const {
    for (int n = n0; n < n1; n += 2 * kLanes) {
      for (int k = k0; k < k1; k += 2 * kLanes) {
        const bool two_rows = n + kLanes < n1, two_columns = k + kLanes < k1;
        if (two_rows && two_columns) add<2, 2>(tile, n, k);
        else if (two_rows) add<2, 1>(tile, n, k);
        else if (two_columns) add<1, 2>(tile, n, k);
        else add<1, 1>(tile, n, k);
      }
    }
  }
};

// [dW…] += [dy turned, its scales, x turned, its scales, offsets | null], scalars: rows in all, gradients
static void fp8_outer(const Op& op, const Context& ctx) {
  const int count = static_cast<int>(op.scalars[1]);
  const View* reads = &op.views[count];
  const TileSpans spans{reads[4], static_cast<int64_t>(op.scalars[0])};
  const int outputs = op.views[0].times, depth = op.views[0].cols;
  int height = 4 * kFp8Square, width = 6 * kFp8Square;  // of one piece of work
  const auto along = [](int all, int piece) { return (all + piece - 1) / piece; };
  while (height > kFp8Square && static_cast<int64_t>(count) * along(outputs, height) * along(depth, width) < 4 * ctx.threads) {
    height -= kFp8Square;
    width -= kFp8Square;
  }
  const int across = along(depth, width), pieces = along(outputs, height) * across;
  const Tiles matrix_unit(kTileRows16);
  ctx.parallel(op, static_cast<int64_t>(count) * pieces, 1, [&](int64_t item, int64_t) {
    const int e = static_cast<int>(item / pieces), at = static_cast<int>(item % pieces);
    const int n0 = at / across * height, k0 = at % across * width;
    const int n1 = n0 + height < outputs ? n0 + height : outputs, k1 = k0 + width < depth ? k0 + width : depth;
    const Fp8Gradient gradient{op.views[e], {reads[0], reads[1]}, {reads[2], reads[3]}};
    const int64_t first = spans.tiles_before(e), last = first + spans.tiles(e);
    for (int64_t some = first; some < last; some += kFp8Tiles) {
      for (int n = n0; n < n1; n += kFp8Square) {
        for (int k = k0; k < k1; k += kFp8Square) {
          for (int64_t tile = some; tile < last && tile < some + kFp8Tiles; ++tile)
            gradient.add_square(tile, n, n + kFp8Square < n1 ? n + kFp8Square : n1, k, k + kFp8Square < k1 ? k + kFp8Square : k1);
        }
      }
    }
  });
}

#define FP8_KERNELS                                                                                            \
  {"fp8_quantise", fp8_quantise}, {"fp8_restore", fp8_restore}, {"fp8_quantise_weight", fp8_quantise_weight},   \
      {"fp8_linear", fp8_linear}, {"fp8_expert_linear", fp8_expert_linear}, {"fp8_turn", fp8_turn},              \
      {"fp8_outer", fp8_outer},
