// What this machine can do at most, measured the way the kernels work: bytes read from memory, products in registers.

// [greatest f32 [1, pieces]] <- [buffer f32]: reads the buffer once; its greatest values.
static void measure_read(const Op& op, const Context& ctx) {
  const View &greatest = op.views[0], &buffer = op.views[1];
  constexpr int kStreams = 4, kStep = 4 * kLanes;  // four places of a piece, as a row of products reads four panels
  const int64_t values = ctx.rows(buffer) * buffer.cols / greatest.cols / (kStreams * kStep) * kStep;
  ctx.parallel(op, greatest.cols, 1, [&](int64_t piece, int64_t) {
    const float* from = buffer.f32() + piece * kStreams * values;
    Vec sum[kStreams];
    for (Vec& s : sum) s = zero();
    for (int64_t i = 0; i < values; i += kStep)
      for (int stream = 0; stream < kStreams; ++stream)
        for (int v = 0; v < kStep; v += kLanes) sum[stream] = max(sum[stream], load(from + stream * values + i + v));
    greatest.f32()[piece] = lane_max(max(max(sum[0], sum[1]), max(sum[2], sum[3])));
  });
}

template <class Operand>
static float multiply_in_registers(int64_t rounds, Operand x, int flops_a_lane, Vec start) {
  constexpr int kChains = kProductRows * kProductPanels;
  Vec sums[kChains];
#pragma GCC unroll 32
  for (int i = 0; i < kChains; ++i) sums[i] = mul(splat(static_cast<float>(i)), start);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 32
    for (Vec& sum : sums) sum = fma(x, x, sum);
  }
  Vec all = zero();
#pragma GCC unroll 32
  for (const Vec& sum : sums) all = add(all, sum);
  return static_cast<float>(rounds) * kChains * kLanes * flops_a_lane + lane_sum(all);
}

#if defined(FARTHING_amx)
static float multiply_in_tiles(int64_t rounds, Vec x) {
  constexpr int kFlops = 2 * kTileRows16 * kLanes * 2 * kTilePairs, kChains = 4;
  const Tiles tiles(kTileRows16);
  alignas(64) Pair operand[kTileRows16 * kTilePairs];
  for (int i = 0; i < kTileRows16; ++i) store(operand + i * kTilePairs, to_pairs(x, x));
  alignas(64) float sums[kTileRows16 * kLanes];
  clear_tiles<2, 2>();
  tile_load<4>(operand, 64);
  tile_load<5>(operand, 64);
  tile_load<6>(operand, 64);
  tile_load<7>(operand, 64);
  for (int64_t round = 0; round < rounds; ++round) {
    tile_multiply<0, 4, 6>();
    tile_multiply<1, 4, 7>();
    tile_multiply<2, 5, 6>();
    tile_multiply<3, 5, 7>();
  }
  tile_store<3>(sums, 64);
  return static_cast<float>(rounds) * kChains * kFlops;
}
#endif

// [flops f32 [threads, 1]] <- [], scalars: rounds, fast, 0. Every thread multiplies without touching memory and
// writes how many floating-point operations it did. The third scalar is the number that is multiplied, unknown to the
// compiler, so that it keeps the chains apart.
static void measure_peak(const Op& op, const Context& ctx) {
  const View& flops = op.views[0];
  if (ctx.thread >= ctx.rows(flops)) return;
  const auto rounds = static_cast<int64_t>(op.scalars[0]);
  const Vec x = splat(static_cast<float>(op.scalars[2]));
  const bool pairs = kPairProducts && op.scalars[1] != 0;
#if defined(FARTHING_amx)
  if (pairs) {
    *flops.f32(ctx.thread) = multiply_in_tiles(rounds, x);
    return;
  }
#endif
  *flops.f32(ctx.thread) = pairs ? multiply_in_registers(rounds, to_pairs(x, x), 4, x) : multiply_in_registers(rounds, x, 2, x);
}

#define MEASURE_KERNELS {"measure_read", measure_read}, {"measure_peak", measure_peak},
