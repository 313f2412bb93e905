// Guesses of the next token from rows of logits, one row a work item. What is drawn here is only ever proposed:
// the sampler decides, so this may round and cut more coarsely than it does.

constexpr int kDrawBuckets = 256;
constexpr float kDrawReach = 32;  // weights below e^-32 of the greatest are nothing

// The weight below which tokens fall away when the most probable ones fill `top_p` of the mass or `top_k` places:
// the lower end of the bucket (of equal width in the logarithm) where that happens.
static float draw_threshold(const float* weights, int n, float mass, float top_p, float top_k) {
  int counts[kDrawBuckets] = {};
  float masses[kDrawBuckets] = {};
  for (int i = 0; i < n; ++i) {
    if (weights[i] <= 0) continue;
    int32_t bits;
    memcpy(&bits, &weights[i], sizeof bits);
    // Exponent and three bits of the significand: eight buckets a power of two.
    const int bucket = (127 * 8 + 7) - (bits >> 20);
    const int at = bucket < 0 ? 0 : bucket < kDrawBuckets ? bucket : kDrawBuckets - 1;
    ++counts[at];
    masses[at] += weights[i];
  }
  int count = 0;
  float reached = 0;
  for (int b = 0; b < kDrawBuckets; ++b) {
    count += counts[b];
    reached += masses[b];
    if (reached < top_p * mass && (top_k <= 0 || count < top_k)) continue;
    const int32_t bits = ((127 * 8 + 7) - b) << 20;
    float lower;
    memcpy(&lower, &bits, sizeof lower);
    return lower;
  }
  return 0;
}

// [ids] <- [logits, settings], settings a row: temperature (0: the most probable), top p, top k (0: all), a number in
// [0, 1) that chooses the point on the line of weights in order of id.
static void draw_tokens(const Op& op, const Context& ctx) {
  const View &ids = op.views[0], &logits = op.views[1], &settings = op.views[2];
  const int n = logits.cols;
  ctx.parallel(op, ctx.rows(logits), 1, [&](int64_t r, int64_t) {
    const float* x = logits.f32(r);
    const float* wanted = settings.f32(r);
    int best = 0;
    for (int i = 1; i < n; ++i) best = x[i] > x[best] ? i : best;
    int32_t* id = ids.i32(r);
    *id = best;
    if (wanted[0] == 0) return;
    float* weights = ctx.local<float>(n);
    const Vec greatest = splat(x[best]), slope = splat(1 / wanted[0]), least = splat(-kDrawReach);
    each_vec(0, n, [&](int c, int lanes) {
      const Vec weight = exp(max(mul(sub(load_up_to(x + c, lanes), greatest), slope), least));
      store_up_to(weights + c, weight, lanes);
    });
    float mass = 0;
    for (int i = 0; i < n; ++i) mass += weights[i];
    const float threshold = draw_threshold(weights, n, mass, wanted[1], wanted[2]);
    float kept = 0;
    for (int i = 0; i < n; ++i) kept += weights[i] >= threshold ? weights[i] : 0;
    const float target = wanted[3] * kept;
    float passed = 0;
    for (int i = 0; i < n; ++i) {
      passed += weights[i] >= threshold ? weights[i] : 0;
      if (passed > target) {
        *id = i;
        return;
      }
    }
  });
}

#define DRAW_KERNELS {"draw_tokens", draw_tokens},
