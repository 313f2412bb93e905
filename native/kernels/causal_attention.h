// Causal attention of whole sequences without a cache, for training; the backward pass is causal_attention_backward.h.
// Blocks of 32 rows are lanes, the rows they see come in chunks of 64; scores are never stored whole.

// scalars and inputs shared by the forward and the backward kernel
struct CausalAttention {
  const View &q, &k, &shared, &v, &starts;
  int heads, kv_heads, qk_dim, shared_dim, v_dim, key_stride, value_stride;
  float scale;
  bool pairs;  // products of bf16 pairs, all factors rounded

  CausalAttention(const Op& op, const View* inputs)
      : q(inputs[0]), k(inputs[1]), shared(inputs[2]), v(inputs[3]), starts(inputs[4]), heads(op.scalars[0]),
        kv_heads(op.scalars[1]), qk_dim(op.scalars[2]),
        shared_dim(inputs[2].data ? static_cast<int>(op.scalars[3]) : 0), v_dim(op.scalars[4]),
        key_stride(op.scalars[5]), value_stride(op.scalars[6]), scale(op.scalars[7]),
        pairs(kPairProducts && op.scalars[8] != 0) {}

  int own_dim() const { return qk_dim - shared_dim; }  // columns of a key that are its head's alone
  int kv_head(int head) const { return head * kv_heads / heads; }
  const float* query(int64_t row, int head) const { return q.f32(row) + head * qk_dim; }
  const float* key(int64_t row, int kv_head) const { return k.f32(row) + kv_head * key_stride; }
  const float* value(int64_t row, int kv_head) const { return v.f32(row) + kv_head * value_stride; }

  // Keys, values or queries of rows base.. as a factor of products; `copy` holds what is rounded.
  CausalOperand factor(const float* data, int64_t stride, int dim, int count, float* copy) const {
    return factor({{{data, stride, dim}, {nullptr, 0, 0}}, count}, copy);
  }
  CausalOperand keys(int64_t base, int count, int kv_head, float* copy) const {
    const CausalOperand::Piece own{key(base, kv_head), k.stride, own_dim()};
    return factor({{own, {shared_dim ? shared.f32(base) : nullptr, shared.stride, shared_dim}}, count}, copy);
  }
  CausalOperand values(int64_t base, int count, int kv_head, float* copy) const {
    return factor(value(base, kv_head), v.stride, v_dim, count, copy);
  }
  CausalOperand factor(CausalOperand x, float* copy) const {
    if (pairs) x.round_into(copy);
    return x;
  }
  // Floats of such copies of a query or key, and of a value.
  size_t copies() const { return pairs ? CausalOperand::floats(qk_dim) + CausalOperand::floats(v_dim) : 0; }

  // Makes columns [depth][kBlockRows] the other factor.
  void round_columns(float* columns, int depth) const {
    if (!pairs) return;
    pair_rows(reinterpret_cast<Pair*>(columns), columns, kBlockRows, depth);
    if (CausalOperand::in_tiles(depth)) fill_up_steps(reinterpret_cast<Pair*>(columns), kBlockRows, (depth + 1) / 2);
  }

  // Scaled queries of rows first.. as columns; the lanes beyond `count` are zero.
  void load_queries(float* queries, int64_t first, int count, int head) const {
    put_columns(queries, kBlockRows, qk_dim, scale,
                [&](int m) { return m < count ? query(first + m, head) : nullptr; });
    round_columns(queries, qk_dim);
  }

  // Windows of rows first..; returns the first row that any of them sees. Lanes beyond `count` see what the last does.
  int64_t load_windows(const Window& window, int64_t first, int count) const {
    int64_t earliest = first;
    for (int m = 0; m < kBlockRows; ++m) {
      const int64_t row = first + (m < count ? m : count - 1);
      const int32_t start = *starts.i32(row);
      if (start < earliest) earliest = start;
      window.first[m] = static_cast<float>(start);
      window.last[m] = static_cast<float>(row);
    }
    return earliest;
  }
};

// Whether all lanes of a block see all of the rows base..base + count - 1.
static inline bool all_seen(const Window& window, int64_t base, int count) {
  for (int m = 0; m < kBlockRows; ++m)
    if (window.first[m] > base || window.last[m] < base + count - 1) return false;
  return true;
}

static inline int64_t blocks_of(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

// [out, logSums] <- [q, k, sharedKeys | null, v, starts],
// scalars: heads, kvHeads, qkDim, sharedDim, vDim, keyStride, valueStride, softmaxScale, fast
static void causal_attention(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &log_sums = op.views[1];
  const CausalAttention a(op, &op.views[2]);
  const Tiles tiles(kTileRows16);
  const int64_t rows = ctx.rows(out), blocks = blocks_of(rows);
  float* queries = ctx.local<float>(kBlockRows * (a.qk_dim + a.v_dim + kChunk + 5) + a.copies());
  float* mixed = queries + a.qk_dim * kBlockRows;
  float* scores = mixed + a.v_dim * kBlockRows;
  float* lanes = scores + kChunk * kBlockRows;
  float* key_copy = lanes + 5 * kBlockRows;
  float* value_copy = key_copy + CausalOperand::floats(a.qk_dim);
  const Window window{lanes, lanes + kBlockRows};
  const Softmax softmax{lanes + 2 * kBlockRows, lanes + 3 * kBlockRows, lanes + 4 * kBlockRows};
  ctx.parallel(op, blocks * a.heads, 1, [&](int64_t item, int64_t) {
    const int head = item % a.heads, kv_head = a.kv_head(head);
    const int64_t first = item / a.heads * kBlockRows;
    const int count = rows - first < kBlockRows ? rows - first : kBlockRows;
    a.load_queries(queries, first, count, head);
    const int64_t earliest = a.load_windows(window, first, count);
    softmax.reset(kBlockRows);
    clear(mixed, a.v_dim * kBlockRows);
    for (int64_t base = earliest; base < first + count; base += kChunk) {
      const int positions = first + count - base < kChunk ? first + count - base : kChunk;
      a.keys(base, positions, kv_head, key_copy).times_columns(scores, queries);
      softmax.add_chunk(scores, positions, kBlockRows, all_seen(window, base, positions) ? nullptr : &window, base);
      a.round_columns(scores, positions);
      const CausalOperand values = a.values(base, positions, kv_head, value_copy);
      values.transposed_times_columns(mixed, scores,
                                      [&](const float* at, int m) { return mul(load(at), load(softmax.decay + m)); });
    }
    take_columns(mixed, kBlockRows, count, a.v_dim, [&](int m, int c, int lanes, Vec v) {
      store_up_to(out.f32(first + m) + head * a.v_dim + c, mul(v, splat(1.0f / softmax.sum[m])), lanes);
    });
    for (int m = 0; m < count; ++m) log_sums.f32(first + m)[head] = softmax.most[m] + std::log(softmax.sum[m]);
  });
}
