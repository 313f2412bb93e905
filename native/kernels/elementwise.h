// Row-wise operations and their backward forms. Backward kernels add to what they write, or overwrite it where they are told to.
// A work item owns rows, or columns where rows are summed, so no sum depends on the threads.

constexpr int64_t kRowGrain = 4;
constexpr int kColumnChunk = 64;

static int column_chunks(int cols) { return (cols + kColumnChunk - 1) / kColumnChunk; }

// Calls body(column, lanes) for groups of up to 16 columns in [first, last).
template <class Body>
static inline void each_vec(int first, int last, Body body) {
  int c = first;
  for (; c + kLanes <= last; c += kLanes) body(c, kLanes);
  if (c < last) body(c, last - c);
}

static inline Vec load_up_to(const float* p, int lanes) { return lanes == kLanes ? load(p) : load_some(p, lanes); }
static inline void store_up_to(float* p, Vec v, int lanes) {
  if (lanes == kLanes) store(p, v);
  else store_some(p, v, lanes);
}

// Runs body(row) for every row of `v`.
template <class Body>
static inline void each_row(const Op& op, const Context& ctx, const View& v, Body body) {
  ctx.parallel(op, ctx.rows(v), kRowGrain, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) body(r);
  });
}

// out[r, :] = f(a[r, :], b[r, :])
template <class F>
static inline void map_rows(const Op& op, const Context& ctx, const View& out, const View& a, const View& b, F f) {
  each_row(op, ctx, out, [&](int64_t r) {
    each_vec(0, out.cols, [&](int c, int lanes) {
      store_up_to(out.f32(r) + c, f(load_up_to(a.f32(r) + c, lanes), load_up_to(b.f32(r) + c, lanes)), lanes);
    });
  });
}

static inline void add_to(float* sum, Vec v, int lanes) { store_up_to(sum, add(load_up_to(sum, lanes), v), lanes); }
static inline void put_or_add(float* to, bool sum, Vec v, int lanes) { store_up_to(to, sum ? add(load_up_to(to, lanes), v) : v, lanes); }

static void copy_row(float* to, const View& from, int64_t row) {
  if (from.dtype == DType::F32) {
    memcpy(to, from.f32(row), from.cols * sizeof(float));
    return;
  }
  const uint16_t* bits = from.bf16(row);
  for (int c = 0; c < from.cols; ++c) {
    const uint32_t wide = static_cast<uint32_t>(bits[c]) << 16;
    memcpy(to + c, &wide, 4);
  }
}

// [out] <- [ids, table f32 | bf16]
static void embed(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &ids = op.views[1], &table = op.views[2];
  each_row(op, ctx, out, [&](int64_t r) { copy_row(out.f32(r), table, *ids.i32(r)); });
}

// [dTable] += [dy, ids]
static void embed_backward(const Op& op, const Context& ctx) {
  const View &table = op.views[0], &dy = op.views[1], &ids = op.views[2];
  const int64_t rows = ctx.rows(dy);
  ctx.parallel(op, column_chunks(dy.cols), 1, [&](int64_t chunk, int64_t) {
    const int first = chunk * kColumnChunk, last = first + kColumnChunk < dy.cols ? first + kColumnChunk : dy.cols;
    for (int64_t r = 0; r < rows; ++r) {
      float* sum = table.f32(*ids.i32(r));
      each_vec(first, last, [&](int c, int lanes) { add_to(sum + c, load_up_to(dy.f32(r) + c, lanes), lanes); });
    }
  });
}

// [out] <- [x, index]
static void select_rows(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &x = op.views[1], &index = op.views[2];
  each_row(op, ctx, out, [&](int64_t r) { memcpy(out.f32(r), x.f32(*index.i32(r)), out.cols * sizeof(float)); });
}

// 1 / rms of d columns
static inline float inverse_rms(const float* x, int d, float eps) {
  Vec squares = zero();
  each_vec(0, d, [&](int c, int lanes) {
    const Vec v = load_up_to(x + c, lanes);
    squares = fma(v, v, squares);
  });
  return 1.0f / std::sqrt(lane_sum(squares) / d + eps);
}

// [out] <- [x, weight], scalars: eps
static void rms_norm(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &x = op.views[1], &weight = op.views[2];
  const int d = weight.cols;
  const float eps = op.scalars[0];
  each_row(op, ctx, out, [&](int64_t r) {
    for (int group = 0; group < x.cols; group += d) {
      const float* in = x.f32(r) + group;
      float* to = out.f32(r) + group;
      const Vec inverse = splat(inverse_rms(in, d, eps));
      each_vec(0, d, [&](int c, int lanes) {
        store_up_to(to + c, mul(mul(load_up_to(in + c, lanes), inverse), load_up_to(weight.f32() + c, lanes)), lanes);
      });
    }
  });
}

// [dx, dWeight | null, partial sums f32 [pieces, d] | null] <- [dy, x, weight, what dx was | null], scalars: eps
// dx = before + inv · (w · dy − x · inv² · mean(w · dy · x)),  dWeight += Σ_rows dy · x · inv
// Rows are summed by pieces whose number is given, and then the pieces.
static void rms_norm_backward(const Op& op, const Context& ctx) {
  const View &dx = op.views[0], &dweight = op.views[1], &partial = op.views[2], &dy = op.views[3], &x = op.views[4];
  const View &weight = op.views[5], &before = op.views[6];
  const int d = weight.cols;
  const float eps = op.scalars[0];
  const int64_t rows = ctx.rows(x), pieces = dweight.data ? partial.times : (rows + kRowGrain - 1) / kRowGrain;
  ctx.parallel(op, pieces, 1, [&](int64_t piece, int64_t) {
    float* sums = dweight.data ? partial.f32(piece) : nullptr;
    if (sums) memset(sums, 0, d * sizeof(float));
    for (int64_t r = rows * piece / pieces; r < rows * (piece + 1) / pieces; ++r) {
      for (int group = 0; group < x.cols; group += d) {
        const float *in = x.f32(r) + group, *gradient = dy.f32(r) + group;
        float* to = dx.f32(r) + group;
        Vec squares = zero(), dots = zero();
        each_vec(0, d, [&](int c, int lanes) {
          const Vec v = load_up_to(in + c, lanes);
          squares = fma(v, v, squares);
          dots = fma(mul(load_up_to(gradient + c, lanes), load_up_to(weight.f32() + c, lanes)), v, dots);
        });
        const float inverse = 1.0f / std::sqrt(lane_sum(squares) / d + eps);
        const Vec scale = splat(inverse), pull = splat(-inverse * inverse * inverse * lane_sum(dots) / d);
        each_vec(0, d, [&](int c, int lanes) {
          const Vec v = load_up_to(in + c, lanes), g = load_up_to(gradient + c, lanes);
          const Vec weighted = mul(g, load_up_to(weight.f32() + c, lanes));
          const Vec slope = fma(weighted, scale, mul(v, pull));
          store_up_to(to + c, before.data ? add(load_up_to(before.f32(r) + group + c, lanes), slope) : slope, lanes);
          if (sums) add_to(sums + c, mul(g, mul(v, scale)), lanes);
        });
      }
    }
  });
  if (!dweight.data) return;
  ctx.barrier();
  ctx.parallel(op, column_chunks(d), 1, [&](int64_t chunk, int64_t) {
    const int first = chunk * kColumnChunk, last = first + kColumnChunk < d ? first + kColumnChunk : d;
    each_vec(first, last, [&](int c, int lanes) {
      Vec sum = load_up_to(dweight.f32() + c, lanes);
      for (int64_t piece = 0; piece < pieces; ++piece) sum = add(sum, load_up_to(partial.f32(piece) + c, lanes));
      store_up_to(dweight.f32() + c, sum, lanes);
    });
  });
}

// [out] <- [x, positions, frequencies], scalars: heads, headDim, offset, interleaved, magnitude, direction (±1)
static void rope(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &x = op.views[1], &positions = op.views[2], &frequencies = op.views[3];
  const int heads = op.scalars[0], head_dim = op.scalars[1], offset = op.scalars[2], pairs = frequencies.cols;
  const bool interleaved = op.scalars[3] != 0;
  const double magnitude = op.scalars[4], direction = op.scalars[5];
  const int step = interleaved ? 2 : 1, apart = interleaved ? 1 : pairs;
  float* cosines = ctx.local<float>(2 * pairs);
  float* sines = cosines + pairs;
  each_row(op, ctx, out, [&](int64_t r) {
    const double position = *positions.i32(r);
    for (int i = 0; i < pairs; ++i) {
      const double angle = direction * position * static_cast<double>(frequencies.f32()[i]);
      cosines[i] = static_cast<float>(magnitude * std::cos(angle));
      sines[i] = static_cast<float>(magnitude * std::sin(angle));
    }
    memcpy(out.f32(r), x.f32(r), x.cols * sizeof(float));
    for (int h = 0; h < heads; ++h) {
      const float* in = x.f32(r) + h * head_dim + offset;
      float* to = out.f32(r) + h * head_dim + offset;
      for (int i = 0; i < pairs; ++i) {
        const float a = in[i * step], b = in[i * step + apart];
        to[i * step] = a * cosines[i] - b * sines[i];
        to[i * step + apart] = a * sines[i] + b * cosines[i];
      }
    }
  });
}

// [out] <- [gate, up]
static void silu_mul(const Op& op, const Context& ctx) {
  map_rows(op, ctx, op.views[0], op.views[1], op.views[2],
           [](Vec gate, Vec up) { return mul(mul(gate, sigmoid(gate)), up); });
}

// [dGate, dUp] += [dy, gate, up], scalars: 0 to overwrite dGate, the same of dUp
static void silu_mul_backward(const Op& op, const Context& ctx) {
  const View &dgate = op.views[0], &dup = op.views[1], &dy = op.views[2], &gate = op.views[3], &up = op.views[4];
  const bool sum_gate = op.scalars[0] != 0, sum_up = op.scalars[1] != 0;
  each_row(op, ctx, gate, [&](int64_t r) {
    each_vec(0, gate.cols, [&](int c, int lanes) {
      const Vec g = load_up_to(gate.f32(r) + c, lanes), u = load_up_to(up.f32(r) + c, lanes);
      const Vec d = load_up_to(dy.f32(r) + c, lanes), s = sigmoid(g), silu = mul(g, s);
      const Vec slope = add(s, mul(silu, sub(splat(1.0f), s)));
      put_or_add(dgate.f32(r) + c, sum_gate, mul(mul(d, u), slope), lanes);
      put_or_add(dup.f32(r) + c, sum_up, mul(d, silu), lanes);
    });
  });
}

// [out] <- [a, b]
static void add_rows(const Op& op, const Context& ctx) {
  map_rows(op, ctx, op.views[0], op.views[1], op.views[2], [](Vec a, Vec b) { return add(a, b); });
}

// [sum] += [x], scalars: 0 to overwrite
static void accumulate(const Op& op, const Context& ctx) {
  const View &sum = op.views[0], &x = op.views[1];
  if (op.scalars[0] != 0) return map_rows(op, ctx, sum, sum, x, [](Vec a, Vec b) { return add(a, b); });
  each_row(op, ctx, sum, [&](int64_t r) { memcpy(sum.f32(r), x.f32(r), x.cols * sizeof(float)); });
}

// [out] <- [a, b]
static void concat(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &a = op.views[1], &b = op.views[2];
  each_row(op, ctx, out, [&](int64_t r) {
    memcpy(out.f32(r), a.f32(r), a.cols * sizeof(float));
    memcpy(out.f32(r) + a.cols, b.f32(r), b.cols * sizeof(float));
  });
}

// [out] <- value
static void fill(const Op& op, const Context& ctx) {
  const View& out = op.views[0];
  const Vec value = splat(static_cast<float>(op.scalars[0]));
  const bool flat = out.stride == out.cols;
  const int64_t rows = flat ? 1 : ctx.rows(out), cols = flat ? ctx.rows(out) * out.cols : out.cols;
  constexpr int64_t kPiece = 1 << 14;
  const int64_t pieces = (cols + kPiece - 1) / kPiece;
  ctx.parallel(op, rows * pieces, 1, [&](int64_t item, int64_t) {
    const int64_t first = item % pieces * kPiece, count = first + kPiece < cols ? kPiece : cols - first;
    float* to = out.f32(item / pieces) + first;
    each_vec(0, static_cast<int>(count), [&](int c, int lanes) { store_up_to(to + c, value, lanes); });
  });
}

// [sums] += [x]: over rows
static void column_sums(const Op& op, const Context& ctx) {
  const View &sums = op.views[0], &x = op.views[1];
  const int64_t rows = ctx.rows(x);
  ctx.parallel(op, column_chunks(x.cols), 1, [&](int64_t chunk, int64_t) {
    const int first = chunk * kColumnChunk, last = first + kColumnChunk < x.cols ? first + kColumnChunk : x.cols;
    for (int64_t r = 0; r < rows; ++r)
      each_vec(first, last, [&](int c, int lanes) { add_to(sums.f32() + c, load_up_to(x.f32(r) + c, lanes), lanes); });
  });
}

#define ELEMENTWISE_KERNELS                                                                       \
  {"embed", embed}, {"embed_backward", embed_backward}, {"select_rows", select_rows},             \
      {"rms_norm", rms_norm}, {"rms_norm_backward", rms_norm_backward}, {"rope", rope},           \
      {"silu_mul", silu_mul}, {"silu_mul_backward", silu_mul_backward}, {"add", add_rows},        \
      {"accumulate", accumulate}, {"concat", concat}, {"fill", fill}, {"column_sums", column_sums},
