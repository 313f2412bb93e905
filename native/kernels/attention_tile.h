// The two products and the softmax that every attention kernel is made of.
// A block of query rows is held transposed, "columns": block[k][width], where a vector's lanes are query rows and
// width is a multiple of 16. Products then add over k in order, one chain for each element, and the softmax needs
// no sum across lanes; so a row's result does not depend on which rows share its block.

#if defined(FARTHING_avx512)
constexpr int kTileRows = 8, kTileVecs = 2;
#else
constexpr int kTileRows = 4, kTileVecs = 1;
#endif

constexpr int kBlockRows = 32;     // lanes of a block in causal attention
constexpr int kChunk = 64;         // and the rows that it sees at a time
constexpr float kHidden = -1e38f;  // score of a pair that does not see each other

// Memory order of the matrix x in a product: element (n, k) is x[n * stride + k] or x[k * stride + n].
enum class Order { Rows, Transposed };

// How a tile holds its lanes: VECS vectors, or the half of one.
template <int VECS>
struct Full {
  static constexpr int kVecs = VECS;
  template <class V>
  static inline V part(V v) { return v; }
  template <class T>
  static inline auto factor(T x) { return splat(x); }
  static inline void put(float* p, Vec v) { store(p, v); }
};

struct Half {
  static constexpr int kVecs = 1;
  template <class V>
  static inline auto part(V v) { return low_half(v); }
  template <class T>
  static inline auto factor(T x) { return splat_half(x); }
  static inline void put(float* p, HalfVec v) { store_half(p, v); }
};

// out[n][lane] = start(n, lane) + sum over k < depth of x(n, k) * columns[k][lane], for ROWS of n and the lanes of L.
// T is float, or Pair: then k, depth and stride count pairs of bf16 numbers.
template <class L, Order ORDER, int ROWS, class T, class Start>
static inline void product_tile(float* out, const T* x, int64_t stride, const T* columns, int width, int depth,
                                Start start) {
  decltype(L::part(zero())) sums[ROWS][L::kVecs];
#pragma GCC unroll 16
  for (int n = 0; n < ROWS; ++n)
#pragma GCC unroll 4
    for (int v = 0; v < L::kVecs; ++v) sums[n][v] = L::part(start(out + n * width + v * kLanes, v * kLanes));
  for (int k = 0; k < depth; ++k) {
    decltype(L::part(load(columns))) column[L::kVecs];
#pragma GCC unroll 4
    for (int v = 0; v < L::kVecs; ++v) column[v] = L::part(load(columns + k * width + v * kLanes));
#pragma GCC unroll 16
    for (int n = 0; n < ROWS; ++n) {
      const auto factor = L::factor(ORDER == Order::Rows ? x[n * stride + k] : x[k * stride + n]);
#pragma GCC unroll 4
      for (int v = 0; v < L::kVecs; ++v) sums[n][v] = fma(factor, column[v], sums[n][v]);
    }
  }
#pragma GCC unroll 16
  for (int n = 0; n < ROWS; ++n)
#pragma GCC unroll 4
    for (int v = 0; v < L::kVecs; ++v) L::put(out + n * width + v * kLanes, sums[n][v]);
}

template <class L, Order ORDER, int ROWS, class T, class Start>
static inline void product_panel(float* out, int rows, const T* x, int64_t stride, const T* columns, int width,
                                 int depth, Start start) {
  const int64_t next = ORDER == Order::Rows ? stride : 1;
  int n = 0;
  for (; n + ROWS <= rows; n += ROWS)
    product_tile<L, ORDER, ROWS>(out + n * width, x + n * next, stride, columns, width, depth, start);
  for (; n + 4 <= rows; n += 4)
    product_tile<L, ORDER, 4>(out + n * width, x + n * next, stride, columns, width, depth, start);
  for (; n < rows; ++n) product_tile<L, ORDER, 1>(out + n * width, x + n * next, stride, columns, width, depth, start);
}

// out[n][m] = start(out + n * width + m, m) + sum over k < depth of x(n, k) * columns[k][m], for n < rows, m < used;
// `width` is the distance of rows. Columns from `used` on are computed as it comes, or not at all.
template <Order ORDER, class T, class Start>
static inline void product(float* out, int rows, const T* x, int64_t stride, const T* columns, int width, int used,
                           int depth, Start start) {
  int m = 0;
  const auto from = [&](const float* at, int lane) { return start(at, m + lane); };
  for (; m + kTileVecs * kLanes <= width; m += kTileVecs * kLanes)
    product_panel<Full<kTileVecs>, ORDER, kTileRows>(out + m, rows, x, stride, columns + m, width, depth, from);
  for (; m < used; m += kLanes) {
    if constexpr (kPairProducts || std::is_same_v<T, float>) {
      if (used - m <= kLanes / 2) {
        product_panel<Half, ORDER, 2 * kTileRows>(out + m, rows, x, stride, columns + m, width, depth, from);
        continue;
      }
    }
    product_panel<Full<1>, ORDER, kTileRows>(out + m, rows, x, stride, columns + m, width, depth, from);
  }
}

// First terms of a product's chains.
constexpr auto from_zero = [](const float*, int) { return zero(); };
constexpr auto from_out = [](const float* at, int) { return load(at); };

#if defined(FARTHING_amx)
#include "tiled_attention.h"
#endif

// Scores: out[n][lane] = sum over k < pairs of x(n, k) * columns[k][lane]; x(n), for each 16th n, is where 16 rows begin,
// `stride` apart. With tiles and whole steps of k, rows of x and of out up to a multiple of 16 are read and written.
template <class X>
static inline void score_pairs(float* out, int rows, X x, int64_t stride, const Pair* columns, int width, int used, int pairs) {
#if defined(FARTHING_amx)
  if (pairs % kTilePairs == 0) return tile_scores(out, rows, x, stride, columns, width, pairs / kTilePairs);
#endif
  for (int n = 0; n < rows; n += kTileRows16) {
    const int some = rows - n < kTileRows16 ? rows - n : kTileRows16;
    product<Order::Rows>(out + n * width, some, x(n), stride, columns, width, used, pairs, from_zero);
  }
}

// Mixed values: out[d][lane] = start + sum over k < pairs of zipped[k][d] * columns[k][lane]. With tiles, rows of zipped
// up to a multiple of 16 are read, and must be zero.
template <class Start>
static inline void mix_pairs(float* out, int dims, const Pair* zipped, int64_t stride, const Pair* columns, int width,
                             [[maybe_unused]] int used, int pairs, Start start) {
#if defined(FARTHING_amx)
  tile_mix(out, dims, zipped, stride, columns, width, pairs, start);
#else
  product<Order::Transposed>(out, dims, zipped, stride, columns, width, used, pairs, start);
#endif
}

static inline int to_lanes(int rows) { return (rows + kLanes - 1) / kLanes * kLanes; }

static inline void clear(float* to, int64_t count) { memset(to, 0, count * sizeof(float)); }

// Zero rows after `pairs` rows, up to a whole step of tiles.
static inline void fill_up_steps([[maybe_unused]] Pair* rows, [[maybe_unused]] int64_t width, [[maybe_unused]] int pairs) {
  if constexpr (kHasTiles) {
    const int whole = (pairs + kTilePairs - 1) / kTilePairs * kTilePairs;
    memset(rows + pairs * width, 0, (whole - pairs) * width * sizeof(Pair));
  }
}

// Row j of pairs[ceil(count / 2)][cols] is rows 2j and 2j + 1 of x side by side; a missing last row is zero, and so are
// the rows that fill up a step of tiles.
template <class Row>
static inline void zip_rows(Pair* pairs, Row row, int count, int cols) {
  const uint16_t none[kLanes] = {};
  for (int j = 0; j < count; j += 2) {
    for (int c = 0; c < cols; c += kLanes)
      store(pairs + j / 2 * cols + c, zip_bf16(row(j) + c, j + 1 < count ? row(j + 1) + c : none));
  }
  fill_up_steps(pairs, cols, (count + 1) / 2);
}

// Rows 2k and 2k + 1 of columns[depth][width] become row k of pairs[ceil(depth / 2)][width]; pairs may be columns.
static inline void pair_rows(Pair* pairs, const float* columns, int width, int depth) {
  for (int k = 0; k < depth; k += 2) {
    for (int m = 0; m < width; m += kLanes) {
      const Vec odd = k + 1 < depth ? load(columns + (k + 1) * width + m) : zero();
      store(pairs + k / 2 * width + m, to_pairs(load(columns + k * width + m), odd));
    }
  }
}

// columns[k][lane] = scale * row(lane)[k] for k < depth and all lanes below width; zero where row(lane) is null.
template <class Row>
static inline void put_columns(float* columns, int width, int depth, float scale, Row row) {
  for (int lane = 0; lane < width; lane += kLanes) {
    const float* rows[kLanes];
    for (int m = 0; m < kLanes; ++m) rows[m] = row(lane + m);
    each_vec(0, depth, [&](int k, int count) {
      Vec block[kLanes];
      for (int m = 0; m < kLanes; ++m) block[m] = rows[m] ? mul(load_up_to(rows[m] + k, count), splat(scale)) : zero();
      transpose(block);
      for (int i = 0; i < count; ++i) store(columns + static_cast<int64_t>(k + i) * width + lane, block[i]);
    });
  }
}

// Calls use(lane, k, count, v) with v = columns[k .. k + count)[lane], for all k < depth and lanes < used.
template <class Use>
static inline void take_columns(const float* columns, int width, int used, int depth, Use use) {
  for (int lane = 0; lane < used; lane += kLanes) {
    each_vec(0, depth, [&](int k, int count) {
      Vec block[kLanes];
      for (int i = 0; i < kLanes; ++i)
        block[i] = i < count ? load(columns + static_cast<int64_t>(k + i) * width + lane) : zero();
      transpose(block);
      for (int m = 0; m < kLanes && lane + m < used; ++m) use(lane + m, k, count, block[m]);
    });
  }
}

// 1 where first <= position <= last, else 0; whole numbers held as floats (exact below 2^24)
static inline Vec within(Vec first, Vec position, Vec last) {
  const Vec one = splat(1.0f);
  return max(min(add(min(sub(last, position), sub(position, first)), one), one), zero());
}

// What each lane sees: positions first[lane]..last[lane].
struct Window {
  float *first, *last;  // [width]

  Vec sees(int lane, float position) const { return within(load(first + lane), splat(position), load(last + lane)); }
};

// Running softmax of each lane over chunks of positions: the greatest score, and the sum of exp(score - greatest).
struct Softmax {
  float *most, *sum;  // [width]
  float* decay;       // [width]: what the last chunk multiplies earlier sums by

  void reset(int width) const {
    for (int m = 0; m < width; m += kLanes) {
      store(most + m, splat(kHidden));
      store(sum + m, zero());
    }
  }

  // Turns scores[count][width] of positions base, base + 1, … into exp(score - most), 0 where a lane does not see.
  void add_chunk(float* scores, int count, int width, const Window* window, float base) const {
    add_chunk(scores, count, width, window, base, [&](int j, int m, Vec even, Vec odd) {
      store(scores + j * width + m, even);
      if (j + 1 < count) store(scores + (j + 1) * width + m, odd);
    });
  }

  // The same, but put(j, m, even, odd) takes them, for positions j and j + 1; of one that is not there it is 0.
  template <class Put>
  void add_chunk(float* scores, int count, int width, const Window* window, float base, Put put) const {
    for (int m = 0; m < width; m += kLanes) {
      const Vec before = load(most + m);
      Vec top = before;
      for (int j = 0; j < count; ++j) {
        Vec s = load(scores + j * width + m);
        if (window) {
          // a finite bound of ±1e38 in place of a mask
          s = min(s, mul(sub(window->sees(m, base + j), splat(0.5f)), splat(-2.0f * kHidden)));
          store(scores + j * width + m, s);
        }
        top = max(top, s);
      }
      const Vec factor = exp(sub(before, top));
      Vec total = mul(load(sum + m), factor);
      const auto weight = [&](int j) {
        Vec p = exp(sub(load(scores + j * width + m), top));
        if (window) p = mul(p, window->sees(m, base + j));
        total = add(total, p);
        return p;
      };
      for (int j = 0; j < count; j += 2) {
        const Vec even = weight(j), odd = j + 1 < count ? weight(j + 1) : zero();
        put(j, m, even, odd);
      }
      store(most + m, top);
      store(sum + m, total);
      store(decay + m, factor);
    }
  }
};
