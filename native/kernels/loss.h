// Cross-entropy of rows of logits. A row is one work item; its sum of exponentials runs over fixed chunks of columns.

constexpr int kLossChunk = 2048;

struct LogSum {
  float most, sum;  // Σ exp(x) = sum · e^most
  float log() const { return most + std::log(sum); }
};

static LogSum log_sum_of(const float* x, int cols) {
  LogSum total{-3e38f, 0};
  for (int first = 0; first < cols; first += kLossChunk) {
    const int last = first + kLossChunk < cols ? first + kLossChunk : cols, whole = last - (last - first) % kLanes;
    Vec greatest = splat(total.most);
    for (int c = first; c < whole; c += kLanes) greatest = max(greatest, load(x + c));
    float most = lane_max(greatest);
    for (int c = whole; c < last; ++c) most = x[c] > most ? x[c] : most;
    Vec sums = zero();
    for (int c = first; c < whole; c += kLanes) sums = add(sums, exp(sub(load(x + c), splat(most))));
    float sum = lane_sum(sums);
    for (int c = whole; c < last; ++c) sum += std::exp(x[c] - most);
    total = {most, total.sum * std::exp(total.most - most) + sum};
  }
  return total;
}

// [loss] <- [logits, targets]
static void cross_entropy(const Op& op, const Context& ctx) {
  const View &loss = op.views[0], &logits = op.views[1], &targets = op.views[2];
  ctx.parallel(op, ctx.rows(logits), 1, [&](int64_t r, int64_t) {
    const int32_t target = *targets.i32(r);
    *loss.f32(r) = target < 0 ? 0.0f : log_sum_of(logits.f32(r), logits.cols).log() - logits.f32(r)[target];
  });
}

// [dLogits (overwritten)] <- [logits, targets, seeds]: seed · (softmax − one-hot), 0 for negative targets
static void cross_entropy_backward(const Op& op, const Context& ctx) {
  const View &dlogits = op.views[0], &logits = op.views[1], &targets = op.views[2], &seeds = op.views[3];
  ctx.parallel(op, ctx.rows(logits), 1, [&](int64_t r, int64_t) {
    const int32_t target = *targets.i32(r);
    const float seed = *seeds.f32(r);
    float* to = dlogits.f32(r);
    if (target < 0 || seed == 0) {
      memset(to, 0, logits.cols * sizeof(float));
      return;
    }
    const LogSum total = log_sum_of(logits.f32(r), logits.cols);
    const Vec most = splat(total.most), factor = splat(seed / total.sum);
    each_vec(0, logits.cols, [&](int c, int lanes) {
      store_up_to(to + c, mul(factor, exp(sub(load_up_to(logits.f32(r) + c, lanes), most))), lanes);
    });
    to[target] -= seed;
  });
}

#define LOSS_KERNELS {"cross_entropy", cross_entropy}, {"cross_entropy_backward", cross_entropy_backward},
