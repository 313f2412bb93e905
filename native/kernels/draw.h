// Guesses of the next token from rows of logits, one row a work item: the sampler's choice (src/engine/sampler.ts) to the
// precision of FP32. What is drawn here is only ever proposed: the sampler decides.

constexpr int kDrawBuckets = 256;
constexpr int kMostSorted = 64;  // of the bucket where a cut falls; of more, all are kept

// Tokens in order of id, and exp((logit - greatest) / temperature) of each.
struct Candidates {
  int32_t* ids;
  float* weights;
  int count;
  float mass;

  void keep_from(float weight, int32_t last_id) {
    int kept = 0;
    mass = 0;
    for (int i = 0; i < count; ++i) {
      if (weights[i] < weight || (weights[i] == weight && ids[i] > last_id)) continue;
      ids[kept] = ids[i];
      weights[kept++] = weights[i];
      mass += weights[i];
    }
    count = kept;
  }

  // Exponent and three bits of the significand: eight buckets a power of two, the greatest weights (1) in the first.
  static int bucket_of(float weight) {
    int32_t bits;
    memcpy(&bits, &weight, sizeof bits);
    const int bucket = 127 * 8 - (bits >> 20);
    return bucket < 0 ? 0 : bucket < kDrawBuckets ? bucket : kDrawBuckets - 1;
  }

  // Keeps the most probable: as few as make up `most` tokens or the mass `enough`.
  void cut(float most, float enough) {
    int counts[kDrawBuckets] = {};
    float masses[kDrawBuckets] = {};
    for (int i = 0; i < count; ++i) {
      const int bucket = bucket_of(weights[i]);
      ++counts[bucket];
      masses[bucket] += weights[i];
    }
    int at = 0;
    float taken = 0, reached = 0;
    for (; at < kDrawBuckets && taken + counts[at] < most && reached + masses[at] < enough; ++at) {
      taken += counts[at];
      reached += masses[at];
    }
    if (at == kDrawBuckets) return;
    float last = INFINITY;
    int32_t last_id = 0;
    for (int n = 0; n < kMostSorted; ++n) {
      int next = -1;
      for (int i = 0; i < count; ++i) {
        const bool follows = weights[i] < last || (weights[i] == last && ids[i] > last_id);
        if (follows && bucket_of(weights[i]) == at && (next < 0 || weights[i] > weights[next])) next = i;
      }
      if (next < 0) break;
      last = weights[next];
      last_id = ids[next];
      reached += last;
      if (++taken >= most || reached >= enough) return keep_from(last, last_id);
    }
    const int32_t bits = (127 * 8 - at) << 20;
    memcpy(&last, &bits, sizeof last);
    keep_from(last, INT32_MAX);
  }
};

// The first of the greatest.
static int best_of_row(const float* x, int n) {
  Vec most = splat(x[0]);
  each_vec(0, n, [&](int c, int lanes) {
    if (lanes == kLanes) most = max(most, load(x + c));
    else
      for (int i = c; i < n; ++i) most = max(most, splat(x[i]));
  });
  const float greatest = lane_max(most);
  int best = 0;
  while (best < n - 1 && x[best] != greatest) ++best;
  return best;
}

// [ids] <- [logits, settings], settings a row: temperature (0: the most probable), top p, top k (0: all), a number in
// [0, 1) that chooses the point on the line of weights in order of id.
static void draw_tokens(const Op& op, const Context& ctx) {
  const View &ids = op.views[0], &logits = op.views[1], &settings = op.views[2];
  const int n = logits.cols;
  ctx.parallel(op, ctx.rows(logits), 1, [&](int64_t r, int64_t) {
    const float* x = logits.f32(r);
    const float* wanted = settings.f32(r);
    const int best = best_of_row(x, n);
    int32_t* id = ids.i32(r);
    *id = best;
    if (wanted[0] == 0) return;
    float* all = ctx.local<float>(3 * static_cast<size_t>(n) + 2 * kLanes);
    const Vec greatest = splat(x[best]), slope = splat(1 / wanted[0]), least = splat(-40.0f);
    Vec sums = zero();
    each_vec(0, n, [&](int c, int lanes) {
      const Vec weight = exp(max(mul(sub(load_up_to(x + c, lanes), greatest), slope), least));
      store_up_to(all + c, weight, lanes);
      sums = add(sums, load_up_to(all + c, lanes));
    });
    const float mass = lane_sum(sums), top_p = wanted[1], top_k = wanted[2];
    // What weighs less is together lighter than what may be left out, or than a rounding error.
    const float light = top_p < 1 && top_k <= 0 ? (1 - top_p) * mass / (2 * static_cast<float>(n)) : 1e-12f;
    Candidates kept{reinterpret_cast<int32_t*>(all + n), all + 2 * n, 0, 0};
    each_vec(0, n, [&](int c, int lanes) {
      if (lanes == kLanes && lane_max(load(all + c)) < light) return;
      for (int i = c; i < c + lanes; ++i) {
        if (all[i] < light) continue;
        kept.ids[kept.count] = i;
        kept.weights[kept.count++] = all[i];
        kept.mass += all[i];
      }
    });
    if (top_k > 0) kept.cut(top_k, INFINITY);
    if (top_p < 1) kept.cut(INFINITY, top_p * (top_k > 0 ? kept.mass : mass));
    const float target = wanted[3] * kept.mass;
    float passed = 0;
    for (int i = 0; i < kept.count; ++i) {
      passed += kept.weights[i];
      if (passed <= target) continue;
      *id = kept.ids[i];
      return;
    }
  });
}

// What a draft of `depth` tokens begins with, once the tokens after a step's last ones are guessed. A sequence's span: the row
// of its last token, how many drafts follow it, the first of its guesses, its position and its row of the block table. Its
// drafts are right as far as they are the guesses; what is drafted follows the first guess that is not a draft.
// [nextIds, index, positions; for each draft its settings; for each but the first positions, slots]
//   <- [ids, guesses, spans, draws, blockTable], scalars: depth, blockTokens
// draws: temperature, top p, top k, and the random numbers of the guesses and drafts, by position.
static void follow_guesses(const Op& op, const Context& ctx) {
  const int depth = op.scalars[0], block_tokens = op.scalars[1];
  const View *settings = &op.views[3], *deeper = settings + depth, *reads = deeper + 2 * (depth > 1 ? depth - 1 : 0);
  const View &ids = reads[0], &guesses = reads[1], &spans = reads[2], &draws = reads[3], &table = reads[4];
  ctx.parallel(op, ctx.rows(spans), 1 << 20, [&](int64_t first, int64_t last) {
    for (int64_t r = first; r < last; ++r) {
      const int32_t* span = spans.i32(r);
      const int32_t row = span[0], drafts = span[1], *guess = guesses.i32(span[2]), *blocks = table.i32(span[4]);
      for (int i = 0; i <= drafts; ++i) *op.views[0].i32(row + i) = guess[i];
      int right = 0;
      while (right < drafts && guess[right] == *ids.i32(row + right + 1)) ++right;
      const int32_t position = span[3] + right;
      *op.views[1].i32(r) = row + right;
      *op.views[2].i32(r) = position;
      for (int i = 0; i < depth; ++i) {
        memcpy(settings[i].f32(r), draws.f32(r), 3 * sizeof(float));
        settings[i].f32(r)[3] = draws.f32(r)[4 + right + i];
      }
      for (int i = 1; i < depth; ++i) {
        *deeper[2 * i - 2].i32(r) = position + i;
        *deeper[2 * i - 1].i32(r) = blocks[(position + i) / block_tokens] * block_tokens + (position + i) % block_tokens;
      }
    }
  });
}

#define DRAW_KERNELS {"draw_tokens", draw_tokens}, {"follow_guesses", follow_guesses},
