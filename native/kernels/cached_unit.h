// What a thread works on in cached_attention.h: some neighbouring tokens of one sequence, and one key/value head.

constexpr int kChunk = 64;
constexpr int kSplit = 512;

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
  int64_t partial_floats(const Run& run) const { return static_cast<int64_t>(width(run)) * (value_dim + 2); }
  bool shared() const { return keys->data == values->data; }
  bool fits_pairs() const {
    const bool even = depth % 2 == 0 && keys->stride % 2 == 0 && values->stride % 2 == 0;
    return kPairProducts && keys->dtype != DType::F32 && even && value_dim % kLanes == 0;
  }
  int64_t cache_row(int sequence, int position) const {
    return static_cast<int64_t>(table->i32(sequence)[position / block_tokens]) * block_tokens + position % block_tokens;
  }
};

// Positions base..base + count - 1 of a sequence lie in neighbouring cache rows.
static inline bool neighbours(const CachedAttention& a, int sequence, int base, int count) {
  const int64_t first = a.cache_row(sequence, base);
  for (int p = (base / a.block_tokens + 1) * a.block_tokens; p < base + count; p += a.block_tokens)
    if (a.cache_row(sequence, p) != first + p - base) return false;
  return true;
}

template <class T>
struct Rows {
  const T* data;
  int64_t stride;
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

// Columns `first`.. of the cache rows of some positions: where they are if possible, else copied (widened).
static inline Rows<float> float_rows(const CachedAttention& a, const View& cache, int sequence, int base, int count,
                                     int first, int cols, float* copy) {
  if (cache.dtype == DType::F32 && neighbours(a, sequence, base, count))
    return {cache.f32(a.cache_row(sequence, base)) + first, cache.stride};
  for (int j = 0; j < count; ++j) read_row(copy + j * cols, a, cache, a.cache_row(sequence, base + j), first, cols);
  return {copy, cols};
}

static inline Rows<uint16_t> bf16_rows(const CachedAttention& a, const View& cache, int sequence, int base, int count,
                                       int first, int cols, uint16_t* copy) {
  const int64_t row = a.cache_row(sequence, base);
  const int touched = kHasTiles ? to_lanes(count) : count;
  if (cache.dtype == DType::BF16 && row + touched <= cache.times && neighbours(a, sequence, base, count))
    return {cache.bf16(row) + first, cache.stride};
  for (int j = 0; j < count; ++j) read_row(copy + j * cols, a, cache, a.cache_row(sequence, base + j), first, cols);
  return {copy, cols};
}

// Row j of pairs[ceil(count / 2)][cols] is rows 2j and 2j + 1 of x side by side; a missing last row is zero, and so are
// the rows that fill up a step of tiles.
static inline void zip_rows(Pair* pairs, const Rows<uint16_t>& x, int count, int cols) {
  const uint16_t none[kLanes] = {};
  for (int j = 0; j < count; j += 2) {
    for (int c = 0; c < cols; c += kLanes) {
      const uint16_t* even = x.data + j * x.stride + c;
      store(pairs + j / 2 * cols + c, zip_bf16(even, j + 1 < count ? even + x.stride : none));
    }
  }
  fill_up_steps(pairs, cols, (count + 1) / 2);
}

// Softmax sums of each lane over some positions: the greatest score, Σ exp(score − most), Σ exp(score − most) · value.
struct Sums {
  float *most, *sum;  // [width]
  float* mixed;       // [value_dim][width]
};

// A run's queries and its running sums for one key/value head, in this thread's scratch.
struct Unit {
  const CachedAttention& a;
  const Run& run;
  int width;              // lanes: query rows, padded
  float* queries;         // [depth][width], scaled; or pairs [depth / 2][width]
  float *first, *last;    // [width]: window of each lane
  float* scores;          // [kChunk][width]
  float* decay;           // [width]
  float *keys, *values;   // copies: [kChunk][depth], [kChunk][value_dim]
  Sums sums, whole;       // of one split; of all splits so far

  static size_t floats(const CachedAttention& a, int width) {
    return static_cast<size_t>(width) * (a.depth + kChunk + 2 * a.value_dim + 7) + kChunk * (a.depth + a.value_dim);
  }

  Unit(const CachedAttention& attention, const Run& tokens, float* memory)
      : a(attention), run(tokens), width(attention.width(tokens)) {
    const auto take = [&](size_t count) {
      float* at = memory;
      memory += count;
      return at;
    };
    queries = take(static_cast<size_t>(a.depth) * width);
    scores = take(static_cast<size_t>(kChunk) * width);
    sums.mixed = take(static_cast<size_t>(a.value_dim) * width);
    whole.mixed = take(static_cast<size_t>(a.value_dim) * width);
    for (float** row : {&first, &last, &decay, &sums.most, &sums.sum, &whole.most, &whole.sum}) *row = take(width);
    keys = take(static_cast<size_t>(kChunk) * a.depth);
    values = take(static_cast<size_t>(kChunk) * a.value_dim);
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
    clear(sums.mixed, static_cast<int64_t>(a.value_dim) * width);
    for (int base = split * kSplit; base < end; base += kChunk) {
      const int count = end - base < kChunk ? end - base : kChunk;
      const Window* mask = base + count > full ? &window : nullptr;
      if (a.pairs) add_chunk_in_pairs(softmax, mask, group, base, count);
      else add_chunk(softmax, mask, group, base, count);
    }
  }

 private:
  int used() const { return run.count * a.group_heads(); }
  int sequence() const { return *a.sequences->i32(run.first); }
  auto decayed() const {
    return [this](const float* at, int m) { return mul(load(at), load(decay + m)); };
  }

  void add_chunk(const Softmax& softmax, const Window* mask, int group, int base, int count) {
    Rows<float> rows = float_rows(a, *a.keys, sequence(), base, count, group * a.depth, a.depth, keys);
    product<Order::Rows>(scores, count, rows.data, rows.stride, queries, width, used(), a.depth, from_zero);
    softmax.add_chunk(scores, count, width, mask, base);
    if (!a.shared())
      rows = float_rows(a, *a.values, sequence(), base, count, group * a.value_dim, a.value_dim, values);
    product<Order::Transposed>(sums.mixed, a.value_dim, rows.data, rows.stride, scores, width, used(), count,
                               decayed());
  }

  void add_chunk_in_pairs(const Softmax& softmax, const Window* mask, int group, int base, int count) {
    auto* copy = reinterpret_cast<uint16_t*>(keys);
    auto* value_pairs = reinterpret_cast<Pair*>(values);
    auto* weights = reinterpret_cast<Pair*>(scores);
    Rows<uint16_t> rows = bf16_rows(a, *a.keys, sequence(), base, count, group * a.depth, a.depth, copy);
    score_pairs(scores, count, reinterpret_cast<const Pair*>(rows.data), rows.stride / 2,
                reinterpret_cast<const Pair*>(queries), width, used(), a.depth / 2);
    softmax.add_chunk(scores, count, width, mask, base);
    pair_rows(weights, scores, width, count);
    if (!a.shared()) rows = bf16_rows(a, *a.values, sequence(), base, count, group * a.value_dim, a.value_dim, copy);
    zip_rows(value_pairs, rows, count, a.value_dim);
    mix_pairs(sums.mixed, a.value_dim, value_pairs, a.value_dim, weights, width, used(), (count + 1) / 2, decayed());
  }
};
