// Routing of tokens to experts, and the way there and back. The grouped products are in linear.h.

// scalars of route_tokens and its backward form
struct RoutingScalars {
  int groups, top_groups;
  bool sigmoid_scores, top2_groups, normalise;
  float scale;
  explicit RoutingScalars(const Op& op)
      : groups(op.scalars[0]), top_groups(op.scalars[1]), sigmoid_scores(op.scalars[2] != 0),
        top2_groups(op.scalars[3] != 0), normalise(op.scalars[4] != 0), scale(op.scalars[5]) {}
};

// Affinities from logits: sigmoid of each, or softmax over all.
static void affinities(const float* logits, int experts, bool sigmoid_scores, float* scores) {
  if (sigmoid_scores) {
    each_vec(0, experts, [&](int c, int lanes) { store_up_to(scores + c, sigmoid(load_up_to(logits + c, lanes)), lanes); });
    return;
  }
  float most = logits[0];
  for (int e = 1; e < experts; ++e) most = logits[e] > most ? logits[e] : most;
  each_vec(0, experts, [&](int c, int lanes) {
    store_up_to(scores + c, exp(sub(load_up_to(logits + c, lanes), splat(most))), lanes);
  });
  float sum = 0;
  for (int e = 0; e < experts; ++e) sum += scores[e];
  for (int e = 0; e < experts; ++e) scores[e] /= sum;
}

// Index of the best score not yet taken; ties go to the lower index.
static int best_of(const float* scores, const uint8_t* taken, int count) {
  int best = -1;
  for (int i = 0; i < count; ++i)
    if (!taken[i] && (best < 0 || scores[i] > scores[best])) best = i;
  return best < 0 ? 0 : best;
}

// The sum of the two best of a group, or the best.
static float group_score(const float* scores, int count, bool top2) {
  float first = scores[0], second = -INFINITY;
  for (int i = 1; i < count; ++i) {
    if (scores[i] > first) second = first, first = scores[i];
    else if (scores[i] > second) second = scores[i];
  }
  return top2 ? first + second : first;
}

// [experts, weights] <- [logits, bias | null]
static void route_tokens(const Op& op, const Context& ctx) {
  const View &chosen = op.views[0], &weights = op.views[1], &logits = op.views[2], &bias = op.views[3];
  const RoutingScalars routing(op);
  const int experts = logits.cols, top_k = chosen.cols, per_group = experts / routing.groups;
  float* scores = ctx.local<float>(3 * experts + routing.groups);
  float *selection = scores + experts, *group_scores = selection + experts;
  auto* taken = reinterpret_cast<uint8_t*>(group_scores + routing.groups);
  each_row(op, ctx, logits, [&](int64_t r) {
    affinities(logits.f32(r), experts, routing.sigmoid_scores, scores);
    for (int e = 0; e < experts; ++e) selection[e] = scores[e] + (bias.data ? bias.f32()[e] : 0.0f);
    memset(taken, 0, experts);
    if (routing.top_groups < routing.groups) {
      uint8_t* group_taken = taken + experts;
      memset(group_taken, 0, routing.groups);
      for (int g = 0; g < routing.groups; ++g)
        group_scores[g] = group_score(selection + g * per_group, per_group, routing.top2_groups);
      for (int k = 0; k < routing.top_groups; ++k) group_taken[best_of(group_scores, group_taken, routing.groups)] = 1;
      for (int e = 0; e < experts; ++e) taken[e] = !group_taken[e / per_group];
    }
    int32_t* indices = chosen.i32(r);
    float sum = 0;
    for (int k = 0; k < top_k; ++k) {
      indices[k] = best_of(selection, taken, experts);
      taken[indices[k]] = 1;
      sum += scores[indices[k]];
    }
    for (int k = 0; k < top_k; ++k) {
      const float weight = scores[indices[k]];
      weights.f32(r)[k] = (routing.normalise ? weight / (sum + 1e-20f) : weight) * routing.scale;
    }
  });
}

// [dLogits] += [dWeights, logits, experts, weights]
static void route_tokens_backward(const Op& op, const Context& ctx) {
  const View &dlogits = op.views[0], &dweights = op.views[1], &logits = op.views[2], &chosen = op.views[3];
  const RoutingScalars routing(op);
  const int experts = logits.cols, top_k = chosen.cols;
  float* scores = ctx.local<float>(experts + top_k);
  float* dscores = scores + experts;
  each_row(op, ctx, logits, [&](int64_t r) {
    affinities(logits.f32(r), experts, routing.sigmoid_scores, scores);
    const int32_t* indices = chosen.i32(r);
    const float* gradient = dweights.f32(r);
    float sum = 1e-20f, pull = 0;
    for (int k = 0; k < top_k; ++k) sum += scores[indices[k]];
    for (int k = 0; k < top_k; ++k) pull += gradient[k] * scores[indices[k]] / sum;
    for (int k = 0; k < top_k; ++k)
      dscores[k] = routing.scale * (routing.normalise ? (gradient[k] - pull) / sum : gradient[k]);
    float* out = dlogits.f32(r);
    if (routing.sigmoid_scores) {
      for (int k = 0; k < top_k; ++k) {
        const float s = scores[indices[k]];
        out[indices[k]] += dscores[k] * s * (1 - s);
      }
      return;
    }
    float mean = 0;
    for (int k = 0; k < top_k; ++k) mean += dscores[k] * scores[indices[k]];
    for (int e = 0; e < experts; ++e) out[e] -= scores[e] * mean;
    for (int k = 0; k < top_k; ++k) out[indices[k]] += scores[indices[k]] * dscores[k];
  });
}

// [order, place, offsets] <- [experts]
static void group_by_expert(const Op& op, const Context& ctx) {
  const View &order = op.views[0], &place = op.views[1], &offsets = op.views[2], &chosen = op.views[3];
  ctx.parallel(op, 1, 1, [&](int64_t, int64_t) {
    const int experts = offsets.times - 1, top_k = chosen.cols;
    const int64_t rows = ctx.rows(chosen);
    int32_t* start = offsets.i32();
    memset(start, 0, (experts + 1) * sizeof(int32_t));
    for (int64_t r = 0; r < rows; ++r)
      for (int k = 0; k < top_k; ++k) ++start[chosen.i32(r)[k] + 1];
    for (int e = 0; e < experts; ++e) start[e + 1] += start[e];
    int32_t* next = ctx.local<int32_t>(experts);
    memcpy(next, start, experts * sizeof(int32_t));
    for (int64_t r = 0; r < rows; ++r) {
      for (int k = 0; k < top_k; ++k) {
        const int32_t at = next[chosen.i32(r)[k]]++;
        order.i32()[at] = static_cast<int32_t>(r * top_k + k);
        place.i32()[r * top_k + k] = at;
      }
    }
  });
}

// A token's part of the balance loss of its window, Σ_e load_e · share_e: loads of the window over their mean, shares of
// the token's affinities (DeepSeek-V3 report eq. 17–20). Loads are counts and carry no gradient.
// [loss] <- [logits, experts]; with seeds, [dLogits] += [seeds, logits, experts]; scalars: sigmoid, rows of a window or 0
struct BalanceLoss {
  const View &logits, &chosen;
  const int experts;
  const bool sigmoid_scores;
  float *shares, *loads, affinity_sum = 1, loss = 0;

  BalanceLoss(const Op& op, const Context& ctx, const View& logits, const View& chosen)
      : logits(logits), chosen(chosen), experts(logits.cols), sigmoid_scores(op.scalars[0] != 0),
        shares(ctx.local<float>(2 * experts)), loads(shares + experts) {}

  void of_row(int64_t r) {
    affinities(logits.f32(r), experts, sigmoid_scores, shares);
    affinity_sum = 1e-20f, loss = 0;
    for (int e = 0; e < experts; ++e) affinity_sum += shares[e];
    for (int e = 0; e < experts; ++e) loss += loads[e] * (shares[e] /= affinity_sum);
  }

  // Calls body(row) for every row, windows being work items.
  template <class Body>
  void each(const Op& op, const Context& ctx, Body body) {
    const int64_t rows = ctx.rows(logits), window = op.scalars[1] > 0 ? static_cast<int64_t>(op.scalars[1]) : rows;
    ctx.parallel(op, window ? (rows + window - 1) / window : 0, 1, [&](int64_t item, int64_t) {
      const int64_t first = item * window, last = first + window < rows ? first + window : rows;
      for (int e = 0; e < experts; ++e) loads[e] = 0;
      for (int64_t r = first; r < last; ++r)
        for (int k = 0; k < chosen.cols; ++k) loads[chosen.i32(r)[k]] += 1;
      for (int e = 0; e < experts; ++e) loads[e] *= static_cast<float>(experts) / static_cast<float>((last - first) * chosen.cols);
      for (int64_t r = first; r < last; ++r) {
        of_row(r);
        body(r);
      }
    });
  }
};

static void balance_loss(const Op& op, const Context& ctx) {
  BalanceLoss balance(op, ctx, op.views[1], op.views[2]);
  balance.each(op, ctx, [&](int64_t r) { *op.views[0].f32(r) = balance.loss; });
}

static void balance_loss_backward(const Op& op, const Context& ctx) {
  BalanceLoss balance(op, ctx, op.views[2], op.views[3]);
  balance.each(op, ctx, [&](int64_t r) {
    const float seed = *op.views[1].f32(r);
    for (int e = 0; e < balance.experts; ++e) {
      const float share = balance.shares[e], slope = balance.sigmoid_scores ? 1 - share * balance.affinity_sum : 1;
      op.views[0].f32(r)[e] += seed * share * slope * (balance.loads[e] - balance.loss);
    }
  });
}

// [entropy] <- [logits], scalars: sigmoid. −Σ share · ln share of a token's affinities, in nats
static void router_entropy(const Op& op, const Context& ctx) {
  const View &entropy = op.views[0], &logits = op.views[1];
  const int experts = logits.cols;
  float* scores = ctx.local<float>(experts);
  each_row(op, ctx, logits, [&](int64_t r) {
    affinities(logits.f32(r), experts, op.scalars[0] != 0, scores);
    float total = 1e-20f, sum = 0;
    for (int e = 0; e < experts; ++e) total += scores[e];
    for (int e = 0; e < experts; ++e)
      if (scores[e] > 0) sum -= scores[e] / total * std::log(scores[e] / total);
    *entropy.f32(r) = sum;
  });
}

// [out] <- [sorted, place, weights]
static void combine_experts(const Op& op, const Context& ctx) {
  const View &out = op.views[0], &sorted = op.views[1], &place = op.views[2], &weights = op.views[3];
  const int top_k = weights.cols;
  each_row(op, ctx, out, [&](int64_t r) {
    const int32_t* places = place.i32() + r * top_k;
    each_vec(0, out.cols, [&](int c, int lanes) {
      Vec sum = zero();
      for (int k = 0; k < top_k; ++k)
        sum = fma(splat(weights.f32(r)[k]), load_up_to(sorted.f32(places[k]) + c, lanes), sum);
      store_up_to(out.f32(r) + c, sum, lanes);
    });
  });
}

// [dSorted, dWeights] += [dOut, sorted, order, place, weights], scalars: 0 to overwrite dSorted
static void combine_experts_backward(const Op& op, const Context& ctx) {
  const View &dsorted = op.views[0], &dweights = op.views[1], &dout = op.views[2], &sorted = op.views[3];
  const View &place = op.views[5], &weights = op.views[6];
  const int top_k = weights.cols;
  const bool sum = op.scalars[0] != 0;
  each_row(op, ctx, dout, [&](int64_t r) {
    const float* gradient = dout.f32(r);
    for (int k = 0; k < top_k; ++k) {
      const int32_t at = place.i32()[r * top_k + k];
      const Vec weight = splat(weights.f32(r)[k]);
      Vec dots = zero();
      each_vec(0, dout.cols, [&](int c, int lanes) {
        const Vec g = load_up_to(gradient + c, lanes);
        dots = fma(g, load_up_to(sorted.f32(at) + c, lanes), dots);
        put_or_add(dsorted.f32(at) + c, sum, mul(weight, g), lanes);
      });
      dweights.f32(r)[k] += lane_sum(dots);
    }
  });
}

// [dx] += [dSorted, place]: a token's slots in slot order; scalars: 0 to overwrite
static void scatter_slots(const Op& op, const Context& ctx) {
  const View &dx = op.views[0], &dsorted = op.views[1], &place = op.views[2];
  const bool sum = op.scalars[0] != 0;
  const int64_t top_k = ctx.rows(dx) ? ctx.rows(place) / ctx.rows(dx) : 0;
  each_row(op, ctx, dx, [&](int64_t r) {
    const int32_t* places = place.i32() + r * top_k;
    each_vec(0, dx.cols, [&](int c, int lanes) {
      Vec slots = zero();
      for (int k = 0; k < top_k; ++k) slots = add(slots, load_up_to(dsorted.f32(places[k]) + c, lanes));
      put_or_add(dx.f32(r) + c, sum, slots, lanes);
    });
  });
}

#define EXPERT_KERNELS                                                                                  \
  {"route_tokens", route_tokens}, {"route_tokens_backward", route_tokens_backward},                     \
      {"balance_loss", balance_loss}, {"balance_loss_backward", balance_loss_backward},                 \
      {"router_entropy", router_entropy},                                                               \
      {"group_by_expert", group_by_expert}, {"combine_experts", combine_experts},                       \
      {"combine_experts_backward", combine_experts_backward}, {"scatter_slots", scatter_slots},
