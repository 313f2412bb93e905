// A row of an fp8 latent cache, as FlashMLA lays it out: `rank` codes of e4m3, an f32 scale for each 128 of them, and the
// rotary key in bf16. Scales are powers of two, as FlashMLA's own are, so a value that is read is exact in bf16.

constexpr float kLeastLatentScale = 1e-4f;  // as published; zeros get a scale too

static inline const uint8_t* rotary_bytes(const uint8_t* row, int rank) {
  return row + rank + (rank + kScaleBlock - 1) / kScaleBlock * sizeof(float);
}

static inline void narrow_row(uint16_t* to, const float* x, int cols) {
  each_vec(0, cols, [&](int c, int lanes) {
    uint16_t some[kLanes];
    store_bf16(lanes < kLanes ? some : to + c, load_up_to(x + c, lanes));
    if (lanes < kLanes) memcpy(to + c, some, lanes * sizeof(uint16_t));
  });
}

static inline void widen_row(float* to, const uint16_t* from, int cols) {
  each_vec(0, cols, [&](int c, int lanes) {
    uint16_t some[kLanes] = {};
    if (lanes < kLanes) memcpy(some, from + c, lanes * sizeof(uint16_t));
    store_up_to(to + c, load_bf16(lanes < kLanes ? some : from + c), lanes);
  });
}

static inline void quantise_latent(uint8_t* row, const float* latent, int rank) {
  for (int first = 0; first < rank; first += kScaleBlock) {
    const int end = rank - first < kScaleBlock ? rank : first + kScaleBlock;
    Vec most = zero();
    each_vec(first, end, [&](int c, int lanes) { most = max(most, magnitude(load_up_to(latent + c, lanes))); });
    const float greatest = lane_max(most), least = kLeastLatentScale * kMostE4m3;
    const float scale = e4m3_scale(greatest > least ? greatest : least, true);
    memcpy(row + rank + first / kScaleBlock * sizeof(float), &scale, sizeof scale);
    each_vec(first, end, [&](int c, int lanes) {
      store_nearest_e4m3_up_to(row + c, div(load_up_to(latent + c, lanes), splat(scale)), lanes);
    });
  }
}

// Calls use(c, lanes, v) for v = values c .. c + lanes of the latent.
template <class Use>
static inline void each_latent(const uint8_t* row, int rank, Use use) {
  for (int first = 0; first < rank; first += kScaleBlock) {
    float scale;
    memcpy(&scale, row + rank + first / kScaleBlock * sizeof(float), sizeof scale);
    each_vec(first, rank - first < kScaleBlock ? rank : first + kScaleBlock,
             [&](int c, int lanes) { use(c, lanes, mul(load_e4m3_up_to(row + c, lanes), splat(scale))); });
  }
}

// to[0 .. depth) = latent and rotary key
static inline void restore_latent(float* to, const uint8_t* row, int rank, int depth) {
  each_latent(row, rank, [&](int c, int lanes, Vec v) { store_up_to(to + c, v, lanes); });
  widen_row(to + rank, reinterpret_cast<const uint16_t*>(rotary_bytes(row, rank)), depth - rank);
}

static inline void restore_latent(uint16_t* to, const uint8_t* row, int rank, int depth) {
  each_latent(row, rank, [&](int c, int lanes, Vec v) {
    uint16_t some[kLanes];
    store_bf16(lanes < kLanes ? some : to + c, v);
    if (lanes < kLanes) memcpy(to + c, some, lanes * sizeof(uint16_t));
  });
  memcpy(to + rank, rotary_bytes(row, rank), (depth - rank) * sizeof(uint16_t));
}

// [cache f32 | bf16 | fp8] <- [latent, rotary key, slots]
static void write_latent(const Op& op, const Context& ctx) {
  const View &cache = op.views[0], &latent = op.views[1], &key = op.views[2], &slots = op.views[3];
  const int rank = latent.cols;
  each_row(op, ctx, latent, [&](int64_t r) {
    const int64_t slot = *slots.i32(r);
    if (cache.dtype == DType::F32) {
      memcpy(cache.f32(slot), latent.f32(r), rank * sizeof(float));
      memcpy(cache.f32(slot) + rank, key.f32(r), key.cols * sizeof(float));
    } else if (cache.dtype == DType::BF16) {
      narrow_row(cache.bf16(slot), latent.f32(r), rank);
      narrow_row(cache.bf16(slot) + rank, key.f32(r), key.cols);
    } else {
      quantise_latent(cache.u8(slot), latent.f32(r), rank);
      uint16_t* to = reinterpret_cast<uint16_t*>(const_cast<uint8_t*>(rotary_bytes(cache.u8(slot), rank)));
      narrow_row(to, key.f32(r), key.cols);
    }
  });
}
