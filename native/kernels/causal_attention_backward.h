// Backward pass of causal_attention: probabilities are computed again from the scores and logSums (FlashAttention,
// alg. 4). With P the probabilities, D = dOut · V and delta = Σ dOut ∘ out of a row:
//   dScore = P ∘ (D − delta),  dQ = scale · dScore K,  dK = scale · dScoreᵀ Q,  dV = Pᵀ dOut.
// A block of queries owns its rows of dQ; a block of keys owns its rows of dK, dV and dShared and takes heads and
// queries in order; so no sum depends on the threads.

// row(m)[c] = or += scale * columns[c][m]
template <class Row>
static inline void put_rows(const float* columns, int count, int depth, float scale, bool sum, Row row) {
  take_columns(columns, kBlockRows, count, depth,
               [&](int m, int c, int lanes, Vec v) { put_or_add(row(m) + c, sum, mul(v, splat(scale)), lanes); });
}

struct CausalGradients {
  const View &dq, &dk, &dshared, &dv, &delta, &dout, &out, &log_sums;
  const bool sum_q, sum_kv, sum_shared;
  explicit CausalGradients(const Op& op)
      : dq(op.views[0]), dk(op.views[1]), dshared(op.views[2]), dv(op.views[3]), delta(op.views[4]), dout(op.views[5]),
        out(op.views[6]), log_sums(op.views[7]), sum_q(op.scalars[9] != 0), sum_kv(op.scalars[10] != 0), sum_shared(op.scalars[11] != 0) {}
};

// delta[r, h] = Σ dOut[r, h, :] · out[r, h, :]
static void causal_deltas(const Op& op, const Context& ctx, const CausalAttention& a, const CausalGradients& g) {
  each_row(op, ctx, g.dout, [&](int64_t r) {
    for (int h = 0; h < a.heads; ++h) {
      Vec dots = zero();
      each_vec(h * a.v_dim, (h + 1) * a.v_dim, [&](int c, int lanes) {
        dots = fma(load_up_to(g.dout.f32(r) + c, lanes), load_up_to(g.out.f32(r) + c, lanes), dots);
      });
      g.delta.f32(r)[h] = lane_sum(dots);
    }
  });
}

// dQ of one block of query rows and one head
static void causal_query_gradient(const Context& ctx, const CausalAttention& a, const CausalGradients& g, int64_t first,
                                  int count, int head) {
  float* queries = ctx.local<float>(kBlockRows * (2 * a.qk_dim + a.v_dim + 2 * kChunk + 4) + a.copies());
  float* gradient = queries + a.qk_dim * kBlockRows;   // [qk_dim][lanes]
  float* douts = gradient + a.qk_dim * kBlockRows;     // [v_dim][lanes]
  float* scores = douts + a.v_dim * kBlockRows;        // [kChunk][lanes]
  float* dscores = scores + kChunk * kBlockRows;       // [kChunk][lanes]
  float* lanes = dscores + kChunk * kBlockRows;
  float *log_sum = lanes + 2 * kBlockRows, *delta = lanes + 3 * kBlockRows;
  float* key_copy = lanes + 4 * kBlockRows;
  float* value_copy = key_copy + CausalOperand::floats(a.qk_dim);
  const Window window{lanes, lanes + kBlockRows};
  const int kv_head = a.kv_head(head);
  a.load_queries(queries, first, count, head);
  const int64_t earliest = a.load_windows(window, first, count);
  clear(gradient, a.qk_dim * kBlockRows);
  put_columns(douts, kBlockRows, a.v_dim, 1.0f,
              [&](int m) { return m < count ? g.dout.f32(first + m) + head * a.v_dim : nullptr; });
  a.round_columns(douts, a.v_dim);
  for (int m = 0; m < kBlockRows; ++m) {
    const int64_t row = first + (m < count ? m : count - 1);
    log_sum[m] = g.log_sums.f32(row)[head];
    delta[m] = g.delta.f32(row)[head];
  }
  for (int64_t base = earliest; base < first + count; base += kChunk) {
    const int positions = first + count - base < kChunk ? first + count - base : kChunk;
    const bool masked = !all_seen(window, base, positions);
    const CausalOperand keys = a.keys(base, positions, kv_head, key_copy);
    keys.times_columns(scores, queries);
    a.values(base, positions, kv_head, value_copy).times_columns(dscores, douts);
    for (int j = 0; j < positions; ++j) {
      for (int m = 0; m < kBlockRows; m += kLanes) {
        float* at = dscores + j * kBlockRows + m;
        Vec p = exp(sub(load(scores + j * kBlockRows + m), load(log_sum + m)));
        if (masked) p = mul(p, window.sees(m, static_cast<float>(base + j)));
        store(at, mul(p, sub(load(at), load(delta + m))));
      }
    }
    a.round_columns(dscores, positions);
    keys.transposed_times_columns(gradient, dscores, from_out);
  }
  put_rows(gradient, count, a.qk_dim, a.scale, g.sum_q, [&](int m) { return g.dq.f32(first + m) + head * a.qk_dim; });
}

// dK, dV and dShared of one block of key rows, lanes being keys
static void causal_key_gradient(const Context& ctx, const CausalAttention& a, const CausalGradients& g, int64_t first,
                                int count, int64_t end) {
  float* keys = ctx.local<float>(kBlockRows * (2 * a.qk_dim + 2 * a.v_dim + 2 * kChunk) + a.copies());
  float* dkeys = keys + a.qk_dim * kBlockRows;        // [qk_dim][lanes], the shared part summed over all heads
  float* values = dkeys + a.qk_dim * kBlockRows;      // [v_dim][lanes]
  float* dvalues = values + a.v_dim * kBlockRows;     // [v_dim][lanes]
  float* scores = dvalues + a.v_dim * kBlockRows;     // [kChunk][lanes]
  float* dscores = scores + kChunk * kBlockRows;      // [kChunk][lanes]
  float* query_copy = dscores + kChunk * kBlockRows;
  float* dout_copy = query_copy + CausalOperand::floats(a.qk_dim);
  alignas(64) float rows[kBlockRows];
  for (int m = 0; m < kBlockRows; ++m) rows[m] = static_cast<float>(first + m);
  clear(dkeys, kBlockRows * a.qk_dim);

  for (int head = 0; head < a.heads; ++head) {
    const int kv_head = a.kv_head(head);
    if (head == 0 || a.kv_head(head - 1) != kv_head) {
      clear(dkeys, a.own_dim() * kBlockRows);
      clear(dvalues, a.v_dim * kBlockRows);
      put_columns(keys, kBlockRows, a.own_dim(), a.scale,
                  [&](int m) { return m < count ? a.key(first + m, kv_head) : nullptr; });
      if (a.shared_dim)
        put_columns(keys + a.own_dim() * kBlockRows, kBlockRows, a.shared_dim, a.scale,
                    [&](int m) { return m < count ? a.shared.f32(first + m) : nullptr; });
      put_columns(values, kBlockRows, a.v_dim, 1.0f,
                  [&](int m) { return m < count ? a.value(first + m, kv_head) : nullptr; });
      a.round_columns(keys, a.qk_dim);
      a.round_columns(values, a.v_dim);
    }
    for (int64_t base = first; base < end; base += kChunk) {
      const int queries = end - base < kChunk ? end - base : kChunk;
      const CausalOperand q = a.factor(a.query(base, head), a.q.stride, a.qk_dim, queries, query_copy);
      const float* dout_rows = g.dout.f32(base) + head * a.v_dim;
      const CausalOperand dout = a.factor(dout_rows, g.dout.stride, a.v_dim, queries, dout_copy);
      q.times_columns(scores, keys);
      dout.times_columns(dscores, values);
      for (int i = 0; i < queries; ++i) {
        const int64_t row = base + i, start = *a.starts.i32(row);
        const bool masked = start > first || row < first + kBlockRows - 1;
        const Vec lowest = splat(static_cast<float>(start)), highest = splat(static_cast<float>(row));
        const Vec log_sum = splat(g.log_sums.f32(row)[head]), delta = splat(g.delta.f32(row)[head]);
        for (int m = 0; m < kBlockRows; m += kLanes) {
          float* at = scores + i * kBlockRows + m;
          float* dat = dscores + i * kBlockRows + m;
          Vec p = exp(sub(load(at), log_sum));
          if (masked) p = mul(p, within(lowest, load(rows + m), highest));
          store(at, p);
          store(dat, mul(p, sub(load(dat), delta)));
        }
      }
      a.round_columns(scores, queries);
      a.round_columns(dscores, queries);
      dout.transposed_times_columns(dvalues, scores, from_out);
      q.transposed_times_columns(dkeys, dscores, from_out);
    }
    if (head + 1 < a.heads && a.kv_head(head + 1) == kv_head) continue;
    put_rows(dkeys, count, a.own_dim(), a.scale, g.sum_kv,
             [&](int m) { return g.dk.f32(first + m) + kv_head * a.key_stride; });
    put_rows(dvalues, count, a.v_dim, 1.0f, g.sum_kv,
             [&](int m) { return g.dv.f32(first + m) + kv_head * a.value_stride; });
  }
  if (a.shared_dim)
    put_rows(dkeys + a.own_dim() * kBlockRows, count, a.shared_dim, a.scale, g.sum_shared,
             [&](int m) { return g.dshared.f32(first + m); });
}

// [dQ, dK, dShared | null, dV, delta] += [dOut, out, logSums, q, k, sharedKeys | null, v, starts], scalars as forward, then
// 0 to overwrite dQ, dK and dV, dShared; delta f32 [R, heads] is scratch and overwritten
static void causal_attention_backward(const Op& op, const Context& ctx) {
  const Tiles tiles(kTileRows16);
  const CausalGradients g(op);
  const CausalAttention a(op, &op.views[8]);
  const int64_t rows = ctx.rows(g.dout), blocks = blocks_of(rows);
  const auto count_from = [&](int64_t first) -> int { return rows - first < kBlockRows ? rows - first : kBlockRows; };
  causal_deltas(op, ctx, a, g);
  ctx.barrier();
  // the longer items first
  ctx.parallel(op, blocks * (1 + a.heads), 1, [&](int64_t item, int64_t) {
    if (item >= blocks) {
      const int64_t first = (item - blocks) / a.heads * kBlockRows;
      causal_query_gradient(ctx, a, g, first, count_from(first), (item - blocks) % a.heads);
      return;
    }
    const int64_t first = item * kBlockRows;
    const int count = count_from(first);
    int64_t end = first + count;  // rows that see a key of the block: starts never fall
    while (end < rows && *a.starts.i32(end) < first + count) ++end;
    causal_key_gradient(ctx, a, g, first, count, end);
  });
}
