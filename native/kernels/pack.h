// Packed weights. A panel holds 16 outputs; panels follow each other, outputs beyond n are zero.
//   packed_f32:  panel[k][16]                f32
//   packed_bf16: panel[k / 2][16][2]         bf16, two neighbouring k of an output side by side
//   packed_fp8:  panel[k / 4][64]            e4m3 codes, four neighbouring k of 16 outputs in the order of a quad
//                                            (e4m3.h); scales stay [ceil(n/128), ceil(k/128)] f32
//   packed_fp4:  panel[k / 8][64]            e2m1 codes in octets (e2m1.h); after all panels their e4m3 scales,
//                                            [panel][k / 16][16]; one f32 scale apart
// k is padded with zeros to a multiple of 2, of 4 for packed_fp8, of 16 for packed_fp4. A vector's lanes are outputs and the loop runs
// over k in order, so one row and many rows are computed by the same chain of sums (DESIGN, contract 3).

constexpr int kScaleBlock = 128;

static inline int panels_of(int outputs) { return (outputs + kLanes - 1) / kLanes; }
static constexpr int bytes_per_value(DType packed) {
  return packed == DType::PackedF32 ? 4 : packed == DType::PackedBF16 ? 2 : 1;
}
static inline int padded_depth(const View& packed) {
  const int step = packed.dtype == DType::PackedFP4 ? kFourBlock : packed.dtype == DType::PackedFP8 ? 4 : 2;
  return (packed.cols + step - 1) / step * step;
}
static inline int64_t panel_bytes(const View& packed) {
  if (packed.dtype == DType::PackedFP4) return static_cast<int64_t>(padded_depth(packed)) * kLanes / 2;
  return static_cast<int64_t>(padded_depth(packed)) * kLanes * bytes_per_value(packed.dtype);
}
static inline const uint8_t* panel_of(const View& packed, int panel) { return packed.u8() + panel * panel_bytes(packed); }
static inline uint8_t* panel_to(const View& packed, int64_t panel) { return packed.u8() + panel * panel_bytes(packed); }

// packed_fp8: the scales of a panel, one for each 128 of k.
static inline const float* block_row_scales(const View& packed, int panel) {
  return packed.scales + static_cast<int64_t>(panel * kLanes / kScaleBlock) * ((packed.cols + kScaleBlock - 1) / kScaleBlock);
}

// packed_fp4: the scales of 16 outputs for 16 of k from `block` · 16 on.
static inline uint8_t* block_scales(const View& packed, int64_t panel, int64_t block) {
  return packed.u8() + panels_of(packed.times) * panel_bytes(packed) + (panel * (padded_depth(packed) / kFourBlock) + block) * kLanes;
}

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
      bits = bf16_of_e4m3(source.u8()[at]);
  }
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  memcpy(&x, &wide, 4);
  if (source.dtype != DType::FP8 || !source.scales) return x;
  const int64_t grid = (source.cols + kScaleBlock - 1) / kScaleBlock;
  return x * source.scales[row / kScaleBlock * grid + col / kScaleBlock];
}

struct Place {
  int64_t row, col;
};

// Packs value by value; at(output, k) says where one stands in the source.
template <class At>
static inline void pack_values(const Op& op, const Context& ctx, At at) {
  const View &packed = op.views[0], &source = op.views[1];
  const int padded = padded_depth(packed);
  ctx.parallel(op, panels_of(packed.times), 1, [&](int64_t panel, int64_t) {
    uint8_t* to = panel_to(packed, panel);
    for (int k = 0; k < padded; ++k) {
      for (int lane = 0; lane < kLanes; ++lane) {
        const int64_t n = panel * kLanes + lane;
        const bool inside = n < packed.times && k < packed.cols;
        const auto [row, col] = at(n, static_cast<int64_t>(k));
        if (packed.dtype == DType::PackedFP8) {
          to[k / 4 * kQuadBytes + quad_slot(lane, k % 4)] = inside ? source.u8()[row * source.stride + col] : 0;
          continue;
        }
        const float value = inside ? source_value(source, row, col) : 0.0f;
        if (packed.dtype == DType::PackedF32) reinterpret_cast<float*>(to)[k * kLanes + lane] = value;
        else reinterpret_cast<uint16_t*>(to)[(k / 2 * kLanes + lane) * 2 + k % 2] = round_one_to_bf16(value);
      }
    }
  });
}

// Packs 16 rows at a time: words(row, k, left) holds the values of 16 words of a row from k on, of which `left` values
// are inside; they are turned around, so that a word of each output lies side by side.
template <int VALUES_IN_WORD, class Words, class Finish>
static inline void pack_words(const Op& op, const Context& ctx, Words words, Finish finish) {
  const View& packed = op.views[0];
  constexpr int kStep = VALUES_IN_WORD * kLanes;
  ctx.parallel(op, panels_of(packed.times), 2, [&](int64_t first, int64_t last) {
    for (int64_t panel = first; panel < last; ++panel) {
      Pair* to = reinterpret_cast<Pair*>(panel_to(packed, panel));
      const int total = padded_depth(packed) / VALUES_IN_WORD;
      for (int k = 0; k < packed.cols; k += kStep) {
        PairVec block[kLanes];
        for (int lane = 0; lane < kLanes; ++lane) {
          const int64_t row = panel * kLanes + lane;
          block[lane] = row < packed.times ? words(row, k, packed.cols - k) : splat(Pair{0});
        }
        transpose(block);
        const int at = k / VALUES_IN_WORD, count = total - at < kLanes ? total - at : kLanes;
        for (int word = 0; word < count; ++word) store(to + (at + word) * kLanes, finish(block[word]));
      }
    }
  });
}

// f32 to packed_bf16, the case of every training step.
static void pack_rounded(const Op& op, const Context& ctx) {
  const View& source = op.views[1];
  const auto words = [&](int64_t row, int k, int left) {
    const float* from = source.f32(row) + k;
    if (left >= 2 * kLanes) return pair_up(load(from), load(from + kLanes));
    return pair_up(load_some(from, left < kLanes ? left : kLanes), left > kLanes ? load_some(from + kLanes, left - kLanes) : zero());
  };
  pack_words<2>(op, ctx, words, [](PairVec v) { return v; });
}

// Stored values to the same packed: bf16 to packed_bf16, e4m3 to packed_fp8.
template <int VALUES_IN_WORD, class Finish>
static void pack_copied(const Op& op, const Context& ctx, Finish finish) {
  constexpr int kBytes = 4 / VALUES_IN_WORD;
  const View& source = op.views[1];
  const auto words = [&](int64_t row, int k, int left) {
    const uint8_t* from = source.u8() + (row * source.stride + k) * kBytes;
    Pair all[kLanes] = {};
    memcpy(all, from, left * kBytes < static_cast<int>(sizeof all) ? left * kBytes : sizeof all);
    return load(all);
  };
  pack_words<VALUES_IN_WORD>(op, ctx, words, finish);
}

// f32 [k, n] to packed_bf16: two rows lie side by side already.
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
        store(reinterpret_cast<Pair*>(panel_to(packed, panel)) + k / 2 * kLanes, to_pairs(even, odd));
      }
    }
  });
}

static bool is_rounded(const View& packed, const View& source) {
  return packed.dtype == DType::PackedBF16 && source.dtype == DType::F32 && reinterpret_cast<uintptr_t>(source.data) % 4 == 0;
}

// [packed n x k] <- [source n x k]
static void pack(const Op& op, const Context& ctx) {
  const View &packed = op.views[0], &source = op.views[1];
  if (is_rounded(packed, source)) return pack_rounded(op, ctx);
  if (packed.dtype == DType::PackedBF16 && source.dtype == DType::BF16)
    return pack_copied<2>(op, ctx, [](PairVec v) { return v; });
  if (packed.dtype == DType::PackedFP8) return pack_copied<4>(op, ctx, quad_order);
  pack_values(op, ctx, [](int64_t n, int64_t k) { return Place{n, k}; });
}

// [packed n x k] <- [source k x n]
static void pack_transposed(const Op& op, const Context& ctx) {
  if (is_rounded(op.views[0], op.views[1])) return pack_columns(op, ctx);
  pack_values(op, ctx, [](int64_t n, int64_t k) { return Place{k, n}; });
}

// [packed_fp4 n x k] <- [codes u8 [n, k / 2], the lower k in the low half; scales e4m3 [n, k / 16]]
static void pack_fours(const Op& op, const Context& ctx) {
  const View &packed = op.views[0], &codes = op.views[1], &scales = op.views[2];
  const int blocks = padded_depth(packed) / kFourBlock;
  ctx.parallel(op, panels_of(packed.times), 1, [&](int64_t panel, int64_t) {
    uint8_t* to = panel_to(packed, panel);
    memset(to, 0, panel_bytes(packed));
    memset(block_scales(packed, panel, 0), 0, blocks * kLanes);
    for (int lane = 0; lane < kLanes && panel * kLanes + lane < packed.times; ++lane) {
      const int64_t row = panel * kLanes + lane;
      for (int k = 0; k < packed.cols; ++k) {
        const int code = codes.u8(row)[k / 2] >> k % 2 * 4 & 15;
        to[k / 8 * kOctetBytes + quad_slot(lane, k % 4)] |= static_cast<uint8_t>(code << k / 4 % 2 * 4);
      }
      for (int block = 0; block < scales.cols; ++block) block_scales(packed, panel, block)[lane] = scales.u8(row)[block];
    }
  });
}

// [found i32 [1, 1]] <- [source fp8]: 1 where a code is NaN. Four codes at a time: adding one carries into the top bit of
// a byte only where its other seven were all set.
static void find_nan(const Op& op, const Context& ctx) {
  const View &found = op.views[0], &source = op.views[1];
  ctx.parallel(op, source.times, 64, [&](int64_t first, int64_t last) {
    uint32_t bits = 0;
    for (int64_t row = first; row < last; ++row) {
      const uint8_t* codes = source.u8(row);
      int k = 0;
      for (; k + 4 <= source.cols; k += 4) {
        uint32_t word;
        memcpy(&word, codes + k, 4);
        bits |= (word & 0x7f7f7f7fu) + 0x01010101u;
      }
      for (; k < source.cols; ++k) bits |= (codes[k] & 0x7fu) + 1u;
    }
    if (bits & 0x80808080u) __atomic_store_n(found.i32(), 1, __ATOMIC_RELAXED);
  });
}

#define PACK_KERNELS {"pack", pack}, {"pack_transposed", pack_transposed}, {"pack_fours", pack_fours}, {"find_nan", find_nan},
