// AdamW and the size of a gradient. Parameters are flat: rows · cols numbers without gaps.

static int64_t flat_size(const View& v, const Context& ctx) { return ctx.rows(v) * v.cols; }

// [out f32 [1, pieces] (overwritten)] <- [x]: sums of squares of equal pieces of x, to be added in order.
// The pieces depend on the sizes alone, so the total does not depend on the threads.
static void sum_squares(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &x = op.views[1];
  const int64_t size = flat_size(x, ctx), pieces = out.cols;
  const int64_t piece = ((size + pieces - 1) / pieces + kLanes - 1) / kLanes * kLanes;
  constexpr int64_t kStep = 4096;  // short chains, then their sums: the error stays that of a tree
  ctx.parallel(op, pieces, 1, [&](int64_t item, int64_t) {
    const int64_t first = item * piece, last = first + piece < size ? first + piece : size;
    float total = 0;
    for (int64_t from = first; from < last; from += kStep) {
      const int count = static_cast<int>(from + kStep < last ? kStep : last - from);
      Vec sums = zero();
      each_vec(0, count, [&](int c, int lanes) {
        const Vec v = load_up_to(x.f32() + from + c, lanes);
        sums = fma(v, v, sums);
      });
      total += lane_sum(sums);
    }
    out.f32()[item] = total;
  });
}

static inline Vec load_bf16_up_to(const uint16_t* p, int lanes) {
  if (lanes == kLanes) return load_bf16(p);
  uint16_t padded[kLanes] = {};
  memcpy(padded, p, lanes * sizeof *p);
  return load_bf16(padded);
}
static inline void store_bf16_up_to(uint16_t* p, Vec v, int lanes) {
  if (lanes == kLanes) return store_bf16(p, v);
  uint16_t all[kLanes];
  store_bf16(all, v);
  memcpy(p, all, lanes * sizeof *p);
}

// [param f32, m bf16, v bf16] updated from [grad, control f32 [1, 8]] (Loshchilov & Hutter, Decoupled Weight Decay,
// alg. 2); moments are kept in BF16 (DeepSeek-V3 report §3.3.3), a step is made of what they were before rounding;
// control: lr, beta1, beta2, eps, weightDecay, 1 − beta1^t, 1 − beta2^t, factor on the gradient
static void adamw(const Op& op, const Context& ctx) {
  const View &param = op.views[0], &first_moment = op.views[1], &second_moment = op.views[2], &gradient = op.views[3];
  const float* control = op.views[4].f32();
  const float beta1 = control[1], beta2 = control[2];
  const Vec keep = splat(1.0f - control[0] * control[4]), eps = splat(control[3]), grad_scale = splat(control[7]);
  const Vec step = splat(control[0] / control[5]), correction = splat(1.0f / control[6]);
  const Vec beta1s = splat(beta1), beta2s = splat(beta2), rest1 = splat(1.0f - beta1), rest2 = splat(1.0f - beta2);
  constexpr int64_t kPiece = 1 << 13;
  const int64_t size = flat_size(param, ctx);
  ctx.parallel(op, size, kPiece, [&](int64_t first, int64_t last) {
    float* p = param.f32() + first;
    uint16_t *m = first_moment.bf16() + first, *v = second_moment.bf16() + first;
    const float* grad = gradient.f32() + first;
    each_vec(0, static_cast<int>(last - first), [&](int c, int lanes) {
      const Vec g = mul(load_up_to(grad + c, lanes), grad_scale);
      const Vec mean = fma(beta1s, load_bf16_up_to(m + c, lanes), mul(rest1, g));
      const Vec square = fma(beta2s, load_bf16_up_to(v + c, lanes), mul(mul(rest2, g), g));
      store_bf16_up_to(m + c, mean, lanes);
      store_bf16_up_to(v + c, square, lanes);
      const Vec size_of_step = div(mul(step, mean), add(sqrt(mul(square, correction)), eps));
      store_up_to(p + c, sub(mul(keep, load_up_to(p + c, lanes)), size_of_step), lanes);
    });
  });
}

#define OPTIMIZER_KERNELS {"sum_squares", sum_squares}, {"adamw", adamw},
