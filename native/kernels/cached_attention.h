// Attention of a step's tokens over the paged cache: latent (MLA, absorbed) and grouped-query.
// Positions are taken in chunks of 64; every 512 a new split begins, with a softmax of its own. Splits are combined
// in order of position. Chunks and splits begin at fixed positions, so a token's result depends neither on the
// tokens computed beside it, nor on block size or threads.

constexpr int kUnitRows = 64;  // query rows (tokens x heads) that share the loaded keys, where one token has fewer

static inline void narrow_row(uint16_t* to, const float* x, int cols) {
  each_vec(0, cols, [&](int c, int lanes) {
    uint16_t some[kLanes];
    store_bf16(lanes < kLanes ? some : to + c, load_up_to(x + c, lanes));
    if (lanes < kLanes) memcpy(to + c, some, lanes * sizeof(uint16_t));
  });
}

// [cache f32 | bf16] <- [x, slots]
static void write_cache(const Op& op, const Context& ctx) {
  const View &cache = op.views[0], &x = op.views[1], &slots = op.views[2];
  each_row(op, ctx, x, [&](int64_t r) {
    const int64_t slot = *slots.i32(r);
    if (cache.dtype == DType::F32) memcpy(cache.f32(slot), x.f32(r), x.cols * sizeof(float));
    else narrow_row(cache.bf16(slot), x.f32(r), x.cols);
  });
}

static inline int splits_of(int last_position) { return last_position / kSplit + 1; }

// Fills runs[rows]; returns how many. `most` rows at most in a run.
static int find_runs(const CachedAttention& a, int64_t rows, int most, Run* runs) {
  int count = 0;
  for (int64_t r = 0; r < rows; ++r) {
    const int splits = splits_of(*a.positions->i32(r));
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

// The weights by which the sums so far and the next split's are added, for 16 lanes.
struct Blend {
  Vec most, old_weight, new_weight;
  Blend(Vec old_most, Vec new_most)
      : most(max(old_most, new_most)), old_weight(exp(sub(old_most, most))), new_weight(exp(sub(new_most, most))) {}
  Vec operator()(Vec old_sum, Vec new_sum) const { return fma(new_weight, new_sum, mul(old_weight, old_sum)); }
};

// out rows of a run <- mixed / sum, columns first..
static void write_mixed(const CachedAttention& a, const Run& run, int group, const float* mixed, const float* sum,
                        int width, int first, int columns) {
  const int per_token = a.group_heads();
  take_columns(mixed + static_cast<int64_t>(first) * width, width, run.count * per_token, columns, [&](int m, int c, int lanes, Vec v) {
    float* to = a.out->f32(run.first + m / per_token) + (group * per_token + m % per_token) * a.value_dim + first;
    store_up_to(to + c, mul(v, splat(1.0f / sum[m])), lanes);
  });
}

// Where the tokens suffice for all threads, a work item is a run with all its splits; else it is one split, its sums
// go to `partials` and a second phase combines them. Both add the same terms in the same order.
static void cached_attention(const Op& op, const Context& ctx, const CachedAttention& a) {
  const int64_t rows = ctx.rows(*a.out);
  if (rows == 0) return;
  const int per_token = a.group_heads();
  const int most_tokens = kUnitRows / per_token > 1 ? kUnitRows / per_token : 1;
  const int most_width = to_lanes(most_tokens * per_token);
  const size_t run_floats = (rows * sizeof(Run) + 63) / 64 * 16;
  float* memory = ctx.local<float>(run_floats + Unit::floats(a, most_width));
  Run* runs = reinterpret_cast<Run*>(memory);
  memory += run_floats;
  const int run_count = find_runs(a, rows, most_tokens, runs);

  // a partial: most[width], sum[width], mixed[value_dim][width]
  const auto partial_floats = [&](const Run& run) {
    return static_cast<int64_t>(to_lanes(run.count * per_token)) * (a.value_dim + 2);
  };
  int64_t needed = 0, split_items = 0;
  for (int i = 0; i < run_count; ++i) {
    needed += partial_floats(runs[i]) * runs[i].splits * a.groups;
    split_items += static_cast<int64_t>(runs[i].splits) * a.groups;
  }
  const int64_t room = static_cast<int64_t>(a.partials->times) * a.partials->stride;
  const int64_t run_items = static_cast<int64_t>(run_count) * a.groups;
  const bool by_split = split_items > run_items && needed <= room && run_items < 4 * ctx.threads;

  if (!by_split) {
    ctx.parallel(op, run_items, 1, [&](int64_t item, int64_t) {
      const Run& run = runs[run_count - 1 - item / a.groups];  // the longest contexts first
      const int group = item % a.groups;
      Unit unit(a, to_lanes(run.count * per_token), memory);
      unit.load_queries(run, group);
      unit.run_split(run, group, 0);
      if (run.splits > 1) {
        const int width = unit.width;
        memcpy(unit.whole_most, unit.most, width * sizeof(float));
        memcpy(unit.whole_sum, unit.sum, width * sizeof(float));
        memcpy(unit.whole_mixed, unit.mixed, static_cast<size_t>(a.value_dim) * width * sizeof(float));
        for (int split = 1; split < run.splits; ++split) {
          unit.run_split(run, group, split);
          for (int m = 0; m < width; m += kLanes) {
            const Blend blend(load(unit.whole_most + m), load(unit.most + m));
            store(unit.whole_most + m, blend.most);
            store(unit.whole_sum + m, blend(load(unit.whole_sum + m), load(unit.sum + m)));
            for (int64_t c = 0; c < a.value_dim; ++c) {
              float* at = unit.whole_mixed + c * width + m;
              store(at, blend(load(at), load(unit.mixed + c * width + m)));
            }
          }
        }
      } else {
        unit.whole_sum = unit.sum;
        unit.whole_mixed = unit.mixed;
      }
      write_mixed(a, run, group, unit.whole_mixed, unit.whole_sum, unit.width, 0, a.value_dim);
    });
    return;
  }

  // Calls body(run, group, split, partial) for the item-th split.
  const auto find_split = [&](int64_t item, auto body) {
    float* partial = a.partials->f32();
    int i = 0;
    for (; item >= static_cast<int64_t>(runs[i].splits) * a.groups; ++i) {
      item -= static_cast<int64_t>(runs[i].splits) * a.groups;
      partial += partial_floats(runs[i]) * runs[i].splits * a.groups;
    }
    body(runs[i], static_cast<int>(item / runs[i].splits), static_cast<int>(item % runs[i].splits),
         partial + item * partial_floats(runs[i]));
  };
  ctx.parallel(op, split_items, 1, [&](int64_t item, int64_t) {
    find_split(item, [&](const Run& run, int group, int split, float* partial) {
      Unit unit(a, to_lanes(run.count * per_token), memory);
      unit.most = partial;
      unit.sum = partial + unit.width;
      unit.mixed = partial + 2 * unit.width;
      unit.load_queries(run, group);
      unit.run_split(run, group, split);
    });
  });
  ctx.barrier();
  // the partials of one run and group lie together; an item combines some columns of them
  constexpr int kColumns = 64;
  const int pieces = (a.value_dim + kColumns - 1) / kColumns;
  float* sums = memory;
  float* mixed = memory + most_width;
  ctx.parallel(op, run_items * pieces, 1, [&](int64_t item, int64_t) {
    const int piece = item % pieces, group = item / pieces % a.groups;
    int64_t first_split = 0;
    const int64_t at_run = item / pieces / a.groups;
    for (int64_t i = 0; i < at_run; ++i) first_split += static_cast<int64_t>(runs[i].splits) * a.groups;
    first_split += static_cast<int64_t>(group) * runs[at_run].splits;
    find_split(first_split, [&](const Run& run, int, int, const float* partial) {
      const int width = to_lanes(run.count * per_token);
      const int from = piece * kColumns, columns = a.value_dim - from < kColumns ? a.value_dim - from : kColumns;
      float* most = mixed + static_cast<int64_t>(a.value_dim) * width;
      memcpy(most, partial, width * sizeof(float));
      memcpy(sums, partial + width, width * sizeof(float));
      memcpy(mixed + static_cast<int64_t>(from) * width, partial + (2 + from) * static_cast<int64_t>(width),
             static_cast<size_t>(columns) * width * sizeof(float));
      for (int split = 1; split < run.splits; ++split) {
        partial += partial_floats(run);
        for (int m = 0; m < width; m += kLanes) {
          const Blend blend(load(most + m), load(partial + m));
          store(most + m, blend.most);
          store(sums + m, blend(load(sums + m), load(partial + width + m)));
          for (int64_t c = from; c < from + columns; ++c) {
            float* at = mixed + c * width + m;
            store(at, blend(load(at), load(partial + (2 + c) * width + m)));
          }
        }
      }
      write_mixed(a, run, group, mixed, sums, width, from, columns);
    });
  });
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
