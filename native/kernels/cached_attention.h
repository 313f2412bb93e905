// Attention of a step's tokens over the paged cache: latent (MLA, absorbed) and grouped-query.
// Positions are taken in chunks of 128; every 512 a new split begins, with a softmax of its own. Splits are combined
// in order of position. Chunks and splits begin at fixed positions, so a token's result depends neither on the
// tokens computed beside it, nor on block size or threads.

constexpr int kUnitRows = 96;  // query rows (tokens x heads) that share the loaded keys, where one token has fewer

// [cache f32 | bf16] <- [x, slots]
static void write_cache(const Op& op, const Context& ctx) {
  const View &cache = op.views[0], &x = op.views[1], &slots = op.views[2];
  each_row(op, ctx, x, [&](int64_t r) {
    const int64_t slot = *slots.i32(r);
    if (cache.dtype == DType::F32) memcpy(cache.f32(slot), x.f32(r), x.cols * sizeof(float));
    else narrow_row(cache.bf16(slot), x.f32(r), x.cols);
  });
}

// Fills runs[rows]; returns how many. `most` rows at most in a run.
static int find_runs(const CachedAttention& a, int64_t rows, int most, Run* runs) {
  int count = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const int splits = *a.positions->i32(r) / kSplit + 1;
    Run* run = count ? &runs[count - 1] : nullptr;
    if (run && run->count < most && *a.sequences->i32(r) == *a.sequences->i32(run->first)) {
      ++run->count;
      if (splits > run->splits) run->splits = splits;
    } else {
      runs[count++] = {static_cast<int32_t>(r), 1, splits};
    }
  }
  return count;
}

// whole <- whole and then part, each rescaled to the greater of their maxima; columns first.. of mixed.
static void blend_into(const Sums& whole, const Sums& part, int width, int64_t stride, int first, int columns) {
  for (int m = 0; m < width; m += kLanes) {
    const Vec old_most = load(whole.most + m), new_most = load(part.most + m), most = max(old_most, new_most);
    float old_weight[kLanes], new_weight[kLanes];
    store(old_weight, exp(sub(old_most, most)));
    store(new_weight, exp(sub(new_most, most)));
    store(whole.most + m, most);
    store(whole.sum + m, fma(load(new_weight), load(part.sum + m), mul(load(old_weight), load(whole.sum + m))));
    for (int lane = 0; lane < kLanes; ++lane) {
      float* at = whole.mixed + (m + lane) * stride + first;
      const float* term = part.mixed + (m + lane) * stride + first;
      for (int c = 0; c < columns; c += kLanes)
        store(at + c, fma(splat(new_weight[lane]), load(term + c), mul(splat(old_weight[lane]), load(at + c))));
    }
  }
}

static void copy_sums(const Sums& to, const Sums& from, int width, int64_t stride, int first, int columns) {
  memcpy(to.most, from.most, width * sizeof(float));
  memcpy(to.sum, from.sum, width * sizeof(float));
  for (int m = 0; m < width; ++m)
    memcpy(to.mixed + m * stride + first, from.mixed + m * stride + first, columns * sizeof(float));
}

// out rows of a run <- mixed / sum, columns first..
static void write_mixed(const CachedAttention& a, const Run& run, int group, const Sums& sums, int first, int columns) {
  const int per_token = a.group_heads();
  for (int m = 0; m < run.count * per_token; ++m) {
    const Vec share = splat(1.0f / sums.sum[m]);
    const float* mixed = sums.mixed + static_cast<int64_t>(m) * a.value_width() + first;
    float* to = a.out->f32(run.first + m / per_token) + (group * per_token + m % per_token) * a.value_dim + first;
    each_vec(0, columns, [&](int c, int lanes) { store_up_to(to + c, mul(load(mixed + c), share), lanes); });
  }
}

struct Runs {
  Run* runs;
  int count;
};

// A work item is a run and group with all its splits.
static void attend_by_run(const Op& op, const Context& ctx, const CachedAttention& a, const Runs& all, float* memory) {
  ctx.parallel(op, static_cast<int64_t>(all.count) * a.groups, 1, [&](int64_t item, int64_t) {
    const Run& run = all.runs[all.count - 1 - item / a.groups];  // the longest contexts first
    const int group = item % a.groups;
    Unit unit(a, run, memory);
    unit.load_queries(group);
    unit.run_split(group, 0);
    const Sums& whole = run.splits > 1 ? unit.whole : unit.sums;
    if (run.splits > 1) copy_sums(unit.whole, unit.sums, unit.width, a.value_width(), 0, a.value_width());
    for (int split = 1; split < run.splits; ++split) {
      unit.run_split(group, split);
      blend_into(unit.whole, unit.sums, unit.width, a.value_width(), 0, a.value_width());
    }
    write_mixed(a, run, group, whole, 0, a.value_dim);
  });
}

// A work item is one split; its sums go to `partials`, in order of run, group and split. A second phase blends them.
static void attend_by_split(const Op& op, const Context& ctx, const CachedAttention& a, const Runs& all,
                            float* memory) {
  const auto partial_at = [&](int run, int group, int split) {
    float* at = a.partials->f32();
    for (int i = 0; i < run; ++i) at += a.partial_floats(all.runs[i]) * all.runs[i].splits * a.groups;
    at += a.partial_floats(all.runs[run]) * (static_cast<int64_t>(group) * all.runs[run].splits + split);
    const int width = a.width(all.runs[run]);
    return Sums{at, at + width, at + 2 * width};
  };
  int64_t items = 0;
  for (int i = 0; i < all.count; ++i) items += static_cast<int64_t>(all.runs[i].splits) * a.groups;
  ctx.parallel(op, items, 1, [&](int64_t item, int64_t) {
    int i = 0;
    for (; item >= static_cast<int64_t>(all.runs[i].splits) * a.groups; ++i)
      item -= static_cast<int64_t>(all.runs[i].splits) * a.groups;
    const int group = item / all.runs[i].splits, split = item % all.runs[i].splits;
    Unit unit(a, all.runs[i], memory);
    unit.sums = partial_at(i, group, split);
    unit.load_queries(group);
    unit.run_split(group, split);
  });
  ctx.barrier();
  constexpr int kColumns = 64;
  const int pieces = (a.value_dim + kColumns - 1) / kColumns;
  ctx.parallel(op, static_cast<int64_t>(all.count) * a.groups * pieces, 1, [&](int64_t item, int64_t) {
    const int i = item / pieces / a.groups, group = item / pieces % a.groups;
    const int from = item % pieces * kColumns, columns = a.value_dim - from < kColumns ? a.value_dim - from : kColumns;
    const Unit unit(a, all.runs[i], memory);
    const int padded = to_lanes(columns);
    copy_sums(unit.whole, partial_at(i, group, 0), unit.width, a.value_width(), from, padded);
    for (int split = 1; split < all.runs[i].splits; ++split)
      blend_into(unit.whole, partial_at(i, group, split), unit.width, a.value_width(), from, padded);
    write_mixed(a, all.runs[i], group, unit.whole, from, columns);
  });
}

// Where there are tokens enough for all threads, each is done whole; else its splits are shared out. Both add the same
// terms in the same order.
static void cached_attention(const Op& op, const Context& ctx, const CachedAttention& a) {
  const int64_t rows = ctx.rows(*a.out);
  const int most_tokens = kUnitRows > a.group_heads() ? kUnitRows / a.group_heads() : 1;
  const Tiles tiles(kTileRows16);
  const size_t run_floats = (rows * sizeof(Run) + 63) / 64 * 16;
  float* memory = ctx.local<float>(run_floats + Unit::floats(a, to_lanes(most_tokens * a.group_heads())));
  Runs all{reinterpret_cast<Run*>(memory), 0};
  all.count = find_runs(a, rows, most_tokens, all.runs);

  int64_t needed = 0, splits = 0;
  for (int i = 0; i < all.count; ++i) {
    needed += a.partial_floats(all.runs[i]) * all.runs[i].splits * a.groups;
    splits += all.runs[i].splits;
  }
  const bool few = all.count * a.groups < 4 * ctx.threads && splits > all.count;
  const bool by_split = few && needed <= a.partials->times * a.partials->stride;
  (by_split ? attend_by_split : attend_by_run)(op, ctx, a, all, memory + run_floats);
}

// [out, partials] <- [qLatent, queries, cache, positions, sequences, blockTable],
// scalars: heads, kvLoraRank, ropeDim, queryHeadDim, queryRopeOffset, softmaxScale, blockTokens, fast
static void latent_attention(const Op& op, const Context& ctx) {
  const auto& v = op.views;
  const int heads = op.scalars[0], rank = op.scalars[1], rope_dim = op.scalars[2];
  const int head_dim = op.scalars[3], rope_offset = op.scalars[4];
  CachedAttention a{};
  a.parts[0] = {&v[2], rank, rank, 0};
  a.parts[1] = {&v[3], rope_dim, head_dim, rope_offset};
  a.part_count = 2;
  a.out = &v[0], a.partials = &v[1], a.keys = &v[4], a.values = &v[4];
  a.positions = &v[5], a.sequences = &v[6], a.table = &v[7];
  a.heads = heads, a.groups = 1, a.depth = rank + rope_dim, a.value_dim = rank;
  a.scale = op.scalars[5], a.block_tokens = op.scalars[6];
  a.pairs = op.scalars[7] != 0 && a.fits_pairs();
  cached_attention(op, ctx, a);
}

// [out, partials] <- [queries, keys, values, positions, sequences, blockTable],
// scalars: heads, kvHeads, headDim, softmaxScale, blockTokens, fast
static void paged_attention(const Op& op, const Context& ctx) {
  const auto& v = op.views;
  const int head_dim = op.scalars[2];
  CachedAttention a{};
  a.parts[0] = {&v[2], head_dim, head_dim, 0};
  a.part_count = 1;
  a.out = &v[0], a.partials = &v[1], a.keys = &v[3], a.values = &v[4];
  a.positions = &v[5], a.sequences = &v[6], a.table = &v[7];
  a.heads = op.scalars[0], a.groups = op.scalars[1], a.depth = head_dim, a.value_dim = head_dim;
  a.scale = op.scalars[3], a.block_tokens = op.scalars[4];
  a.pairs = op.scalars[5] != 0 && a.fits_pairs();
  cached_attention(op, ctx, a);
}
