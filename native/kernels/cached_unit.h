// What a thread works on in cached_attention.h: some neighbouring tokens of one sequence, and one key/value head.

constexpr int kSpan = 128;  // positions of a chunk
constexpr int kSplit = 512;
constexpr int kMostValues = 4096;  // columns of a value that pairs allow
constexpr int kTogether = 16;  // positions whose cache rows lie together, where a block has a multiple of them

// Neighbouring rows of one sequence.
struct Run {
  int32_t first, count, splits;
};

// One attention over a cache. Query row m of a unit is head m % group_heads of token m / group_heads; it is made of
// `parts` pieces of columns, which follow each other along the key.
struct CachedAttention {
  struct Part {
    const View* x;
    int dim, head_stride, offset;
  };
  Part parts[2];
  int part_count;
  const View *out, *keys, *values, *positions, *sequences, *table, *partials;
  int heads, groups;      // groups = key/value heads
  int depth, value_dim;   // columns of a key and of a value
  float scale;
  int block_tokens;
  bool pairs;  // products of bf16 pairs: the cache as it is, queries and probabilities rounded

  int group_heads() const { return heads / groups; }
  int width(const Run& run) const { return to_lanes(run.count * group_heads()); }
  int value_width() const { return to_lanes(value_dim); }
  int64_t partial_floats(const Run& run) const { return static_cast<int64_t>(width(run)) * (value_width() + 2); }
  bool shared() const { return keys->data == values->data; }
  bool fits_pairs() const {
    const bool even = depth % 2 == 0 && keys->stride % 2 == 0 && values->stride % 2 == 0;
    return kPairProducts && keys->dtype != DType::F32 && even && value_dim % kLanes == 0 && value_dim <= kMostValues;
  }
  int64_t cache_row(int sequence, int position) const {
    return static_cast<int64_t>(table->i32(sequence)[position / block_tokens]) * block_tokens + position % block_tokens;
  }
};

// to[0..cols) = columns first.. of a cached row; of an fp8 row, which has no others, latent and rotary key
static inline void read_row(float* to, const CachedAttention& a, const View& cache, int64_t row, int first, int cols) {
  if (cache.dtype == DType::F32) memcpy(to, cache.f32(row) + first, cols * sizeof(float));
  else if (cache.dtype == DType::BF16) widen_row(to, cache.bf16(row) + first, cols);
  else restore_latent(to, cache.u8(row), a.value_dim, cols);
}
static inline void read_row(uint16_t* to, const CachedAttention& a, const View& cache, int64_t row, int first, int cols) {
  if (cache.dtype == DType::BF16) memcpy(to, cache.bf16(row) + first, cols * sizeof(uint16_t));
  else restore_latent(to, cache.u8(row), a.value_dim, cols);
}

// The rows of up to kSpan positions, as many as kTogether in a piece.
template <class T>
struct Rows {
  const T* pieces[kSpan / kTogether];
  int64_t stride;

  const T* row(int j) const { return pieces[j / kTogether] + j % kTogether * stride; }
};

// Columns `first`.. of the cache rows of positions base..: where they are, if they are T in pieces, else copied. Pieces in
// the cache are whole, whatever `count`.
template <class T>
static inline Rows<T> cached_rows(const CachedAttention& a, const View& cache, int sequence, int base, int count, int first,
                                  int cols, T* copy) {
  const bool there = cache.dtype == (sizeof(T) == 4 ? DType::F32 : DType::BF16) && a.block_tokens % kTogether == 0;
  Rows<T> rows;
  rows.stride = there ? cache.stride : cols;
  for (int j = 0; j < count; j += kTogether)
    rows.pieces[j / kTogether] =
        there ? static_cast<const T*>(cache.data) + a.cache_row(sequence, base + j) * cache.stride + first : copy + j * cols;
  if (!there)
    for (int j = 0; j < count; ++j) read_row(copy + j * cols, a, cache, a.cache_row(sequence, base + j), first, cols);
  return rows;
}

// Softmax sums of each lane over some positions: the greatest score, Σ exp(score − most), Σ exp(score − most) · value.
struct Sums {
  float *most, *sum;  // [width]
  float* mixed;       // [width][value_width]
};

// A run's queries and its running sums for one key/value head, in this thread's scratch.
struct Unit {
  const CachedAttention& a;
  const Run& run;
  int width;              // lanes: query rows, padded
  float* queries;         // [depth][width], scaled; or pairs [depth / 2][width]
  float *first, *last;    // [width]: window of each lane
  float* scores;          // [kSpan][width]
  float* turned;          // pairs [width][kSpan / 2]
  float* decay;           // [width]
  float *keys, *values;   // copies: [kSpan][depth], [kSpan][value_width]
  Sums sums, whole;       // of one split; of all splits so far

  static size_t floats(const CachedAttention& a, int width) {
    const size_t lane = a.depth + kSpan + kSpan / 2 + 2 * a.value_width() + 7;
    return width * lane + static_cast<size_t>(kSpan) * (a.depth + a.value_width());
  }

  Unit(const CachedAttention& attention, const Run& tokens, float* memory)
      : a(attention), run(tokens), width(attention.width(tokens)) {
    const auto take = [&](size_t count) {
      float* at = memory;
      memory += count;
      return at;
    };
    queries = take(static_cast<size_t>(a.depth) * width);
    scores = take(static_cast<size_t>(kSpan) * width);
    turned = take(static_cast<size_t>(kSpan) / 2 * width);
    sums.mixed = take(static_cast<size_t>(a.value_width()) * width);
    whole.mixed = take(static_cast<size_t>(a.value_width()) * width);
    for (float** row : {&first, &last, &decay, &sums.most, &sums.sum, &whole.most, &whole.sum}) *row = take(width);
    keys = take(static_cast<size_t>(kSpan) * a.depth);
    values = take(static_cast<size_t>(kSpan) * a.value_width());
  }

  void load_queries(int group) {
    const int per_token = a.group_heads();
    for (int m = 0; m < width; ++m) {
      const int token = m / per_token < run.count ? m / per_token : run.count - 1;
      first[m] = 0;
      last[m] = static_cast<float>(*a.positions->i32(run.first + token));
    }
    float* to = queries;
    for (int p = 0; p < a.part_count; ++p) {
      const auto& part = a.parts[p];
      put_columns(to, width, part.dim, a.scale, [&](int m) -> const float* {
        if (m >= run.count * per_token) return nullptr;
        const int head = group * per_token + m % per_token;
        return part.x->f32(run.first + m / per_token) + head * part.head_stride + part.offset;
      });
      to += static_cast<int64_t>(part.dim) * width;
    }
    if (a.pairs) pair_rows(reinterpret_cast<Pair*>(queries), queries, width, a.depth);
  }

  // Computes `sums` over the positions of one split.
  void run_split(int group, int split) {
    int end = 0, full = 1 << 30;  // positions below `full` are seen by all lanes
    for (int t = 0; t < run.count; ++t) {
      const int seen = *a.positions->i32(run.first + t) + 1;
      end = seen > end ? seen : end;
      full = seen < full ? seen : full;
    }
    if (end > (split + 1) * kSplit) end = (split + 1) * kSplit;
    const Softmax softmax{sums.most, sums.sum, decay};
    const Window window{first, last};
    softmax.reset(width);
    clear(sums.mixed, static_cast<int64_t>(a.value_width()) * width);
    for (int base = split * kSplit; base < end; base += kSpan) {
      const int count = end - base < kSpan ? end - base : kSpan;
      const Window* mask = base + count > full ? &window : nullptr;
      if (a.pairs) add_chunk_in_pairs(softmax, mask, group, base, count);
      else add_chunk(softmax, mask, group, base, count);
    }
  }

 private:
  int used() const { return run.count * a.group_heads(); }
  int sequence() const { return *a.sequences->i32(run.first); }

  // What is mixed so far, in terms of the new maxima.
  void let_decay() const {
    for (int m = 0; m < used(); ++m) {
      if (decay[m] == 1) continue;
      float* row = sums.mixed + static_cast<int64_t>(m) * a.value_width();
      for (int c = 0; c < a.value_width(); c += kLanes) store(row + c, mul(load(row + c), splat(decay[m])));
    }
  }

  void add_chunk(const Softmax& softmax, const Window* mask, int group, int base, int count) {
    const Rows<float> rows = cached_rows(a, *a.keys, sequence(), base, count, group * a.depth, a.depth, keys);
    for (int j = 0; j < count; j += kTogether) {
      const int some = count - j < kTogether ? count - j : kTogether;
      product<Order::Rows>(scores + j * width, some, rows.row(j), rows.stride, queries, width, used(), a.depth, from_zero);
    }
    softmax.add_chunk(scores, count, width, mask, base);
    let_decay();
    const int value_width = a.value_width();
    for (int j = 0; j < count; ++j) {
      float* to = values + j * value_width;
      clear(to + a.value_dim, value_width - a.value_dim);
      if (a.shared()) memcpy(to, rows.row(j), a.value_dim * sizeof(float));
      else read_row(to, a, *a.values, a.cache_row(sequence(), base + j), group * a.value_dim, a.value_dim);
    }
    product<Order::Transposed>(sums.mixed, used(), scores, width, values, value_width, value_width, count, from_out);
  }

  void add_chunk_in_pairs(const Softmax& softmax, const Window* mask, int group, int base, int count) {
    auto* copy = reinterpret_cast<uint16_t*>(keys);
    auto* zipped = reinterpret_cast<Pair*>(values);
    auto* weights = reinterpret_cast<Pair*>(scores);
    Rows<uint16_t> rows = cached_rows(a, *a.keys, sequence(), base, count, group * a.depth, a.depth, copy);
    if (a.shared()) zip_values(zipped, rows, count);  // before the scores: it brings the rows near in their order
    score_pairs(scores, count, [&](int j) { return reinterpret_cast<const Pair*>(rows.row(j)); }, rows.stride / 2,
                reinterpret_cast<const Pair*>(queries), width, used(), a.depth / 2);
    softmax.add_chunk(scores, count, width, mask, base, [&](int j, int m, Vec even, Vec odd) {
      store(weights + j / 2 * width + m, to_pairs(even, odd));
    });
    let_decay();
    if (!a.shared()) {
      rows = cached_rows(a, *a.values, sequence(), base, count, group * a.value_dim, a.value_dim, copy);
      zip_values(zipped, rows, count);
    }
    const int pairs = (count + 1) / 2;
#if defined(FARTHING_amx)
    tile_mix_rows(sums.mixed, a.value_dim, a.value_dim, zipped, weights, width, pairs, reinterpret_cast<Pair*>(turned));
#else
    product<Order::Transposed>(sums.mixed, used(), weights, width, zipped, a.value_dim, a.value_dim, pairs, from_out);
#endif
  }

  void zip_values(Pair* zipped, const Rows<uint16_t>& rows, int count) const {
#if defined(FARTHING_amx)
    static const uint16_t none[kMostValues] = {};
    const int pairs = (count + 2 * kTilePairs - 1) / (2 * kTilePairs) * kTilePairs;
    zip_to_tiles(zipped, [&](int j) { return j < count ? rows.row(j) : none; }, pairs, a.value_dim);
#else
    zip_rows(zipped, [&](int j) { return rows.row(j); }, count, a.value_dim);
#endif
  }
};
