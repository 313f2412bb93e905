// Packed weights. A panel holds 16 outputs; panels follow each other, outputs beyond n are zero.
//   packed_f32:  panel[k][16]                f32
//   packed_bf16: panel[k / 2][16][2]         bf16, two neighbouring k of an output side by side
//   packed_fp8:  panel[k / 2][16][2]         e4m3 bytes, likewise; scales stay [ceil(n/128), ceil(k/128)] f32
// k is padded with a zero to an even number. A vector's lanes are outputs and the loop runs over k in order,
// so one row and many rows are computed by the same chain of sums (DESIGN, contract 3).

constexpr int kScaleBlock = 128;

static inline int panels_of(int outputs) { return (outputs + kLanes - 1) / kLanes; }
static inline int pairs_of(int depth) { return (depth + 1) / 2; }
static inline int bytes_per_value(DType packed) {
  return packed == DType::PackedF32 ? 4 : packed == DType::PackedBF16 ? 2 : 1;
}
static inline int64_t panel_bytes(const View& packed) {
  return static_cast<int64_t>(pairs_of(packed.cols)) * 2 * kLanes * bytes_per_value(packed.dtype);
}
static inline const uint8_t* panel_of(const View& packed, int panel) { return packed.u8() + panel * panel_bytes(packed); }

static inline float half_to_float(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, exponent = (half >> 10) & 31, fraction = half & 0x3ff;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * static_cast<float>(fraction) * 0x1p-24f;
  const uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

static inline uint16_t round_one_to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  if (x != x) return 0x7fc0;
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Element (row, col) of a row-major source of any stored type, dequantised. The source may be unaligned.
static inline float source_value(const View& source, int64_t row, int64_t col) {
  const int64_t at = row * source.stride + col;
  uint16_t bits;
  float x;
  switch (source.dtype) {
    case DType::F32:
      memcpy(&x, source.u8() + at * 4, 4);
      return x;
    case DType::BF16:
      memcpy(&bits, source.u8() + at * 2, 2);
      break;
    case DType::F16:
      memcpy(&bits, source.u8() + at * 2, 2);
      return half_to_float(bits);
    default:
      bits = fp8_to_bf16(source.u8()[at]);
  }
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  memcpy(&x, &wide, 4);
  if (source.dtype != DType::FP8 || !source.scales) return x;
  const int64_t grid = (source.cols + kScaleBlock - 1) / kScaleBlock;
  return x * source.scales[row / kScaleBlock * grid + col / kScaleBlock];
}

// Packs panel by panel; at(output, k) says where a value stands in the source.
template <class At>
static inline void pack_panels(const Op& op, const Context& ctx, int outputs, int depth, At at) {
  const View &packed = op.views[0], &source = op.views[1];
  const int padded = pairs_of(depth) * 2;
  ctx.parallel(op, panels_of(outputs), 1, [&](int64_t panel, int64_t) {
    uint8_t* to = packed.u8() + panel * panel_bytes(packed);
    for (int k = 0; k < padded; ++k) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t n = panel * kLanes + lane;
        const bool inside = n < outputs && k < depth;
        const auto [row, col] = at(n, static_cast<int64_t>(k));
        if (packed.dtype == DType::PackedF32) {
          reinterpret_cast<float*>(to)[k * kLanes + lane] = inside ? source_value(source, row, col) : 0.0f;
          continue;
        }
        const int slot = (k / 2 * kLanes + lane) * 2 + (k & 1);
        if (packed.dtype == DType::PackedFP8) to[slot] = inside ? source.u8()[row * source.stride + col] : 0;
        else reinterpret_cast<uint16_t*>(to)[slot] = inside ? round_one_to_bf16(source_value(source, row, col)) : 0;
      }
    }
  });
}

struct Place {
  int64_t row, col;
};

// f32 [n, k] to packed_bf16, the case of every training step: 16 rows of 32 columns at a time, turned around.
static void pack_rows(const Op& op, const Context& ctx) {
  const View &packed = op.views[0], &source = op.views[1];
  const int depth = packed.cols, pairs = pairs_of(depth);
  ctx.parallel(op, panels_of(packed.times), 2, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) {
      Pair* to = reinterpret_cast<Pair*>(packed.u8() + panel * panel_bytes(packed));
      const int64_t rows = packed.times - panel * kLanes;
      for (int k = 0; k < depth; k += 2 * kLanes) {
        PairVec block[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) {
          const float* from = source.f32(panel * kLanes + lane) + k;
          const int left = lane < rows ? depth - k : 0;
          if (left >= 2 * kLanes) block[lane] = pair_up(load(from), load(from + kLanes));
          else block[lane] = pair_up(load_some(from, left < kLanes ? left : kLanes), left > kLanes ? load_some(from + kLanes, left - kLanes) : zero());
        }
        transpose(block);
        const int count = pairs - k / 2 < kLanes ? pairs - k / 2 : kLanes;
        for (int pair = 0; pair < count; ++pair) store(to + (k / 2 + pair) * kLanes, block[pair]);
      }
    }
  });
}

// The same from f32 [k, n]: two rows lie side by side already.
static void pack_columns(const Op& op, const Context& ctx) {
  const View &packed = op.views[0], &source = op.views[1];
  const int depth = packed.cols;
  ctx.parallel(op, panels_of(packed.times), 4, [&](int64_t first, int64_t last) {
    for (int k = 0; k < depth; k += 2) {
      for (int64_t panel = first; panel < last; ++panel) {
        const int64_t n = panel * kLanes;
        const int lanes = packed.times - n < kLanes ? static_cast<int>(packed.times - n) : kLanes;
        const Vec even = load_up_to(source.f32(k) + n, lanes);
        const Vec odd = k + 1 < depth ? load_up_to(source.f32(k + 1) + n, lanes) : zero();
        store(reinterpret_cast<Pair*>(packed.u8() + panel * panel_bytes(packed)) + k / 2 * kLanes, to_pairs(even, odd));
      }
    }
  });
}

static bool is_training_pack(const View& packed, const View& source) {
  return packed.dtype == DType::PackedBF16 && source.dtype == DType::F32 && reinterpret_cast<uintptr_t>(source.data) % 4 == 0;
}

// [packed n x k] <- [source n x k]
static void pack(const Op& op, const Context& ctx) {
  const View &packed = op.views[0], &source = op.views[1];
  if (is_training_pack(packed, source)) return pack_rows(op, ctx);
  pack_panels(op, ctx, packed.times, packed.cols, [](int64_t n, int64_t k) { return Place{n, k}; });
}

// [packed n x k] <- [source k x n]
static void pack_transposed(const Op& op, const Context& ctx) {
  const View &packed = op.views[0], &source = op.views[1];
  if (is_training_pack(packed, source)) return pack_columns(op, ctx);
  pack_panels(op, ctx, packed.times, packed.cols, [](int64_t n, int64_t k) { return Place{k, n}; });
}

#define PACK_KERNELS {"pack", pack}, {"pack_transposed", pack_transposed},
