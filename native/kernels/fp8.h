// Quantisation for FP8 training (DeepSeek-V3 report §3.3.2): activations and their gradients in tiles of 128 of a row,
// weights in blocks of 128 x 128, scaled online so that the greatest magnitude becomes 448, the greatest of e4m3.

constexpr float kMostE4m3 = 448;

#if defined(FARTHING_avx512)

// By way of f16, in whose order of bits a code is 2^-8 of itself; its subnormal numbers are kept in every mode.
static inline Vec load_e4m3(const uint8_t* p) {
  const __m256i halves = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)), 7);
  return mul(_mm512_cvtph_ps(_mm256_and_si256(halves, _mm256_set1_epi16(static_cast<int16_t>(0xbf80)))), splat(0x1p8f));
}
// 2^e of numbers in [2^e, 2^(e+1)), without the sign
static inline Vec power_of(Vec v) {
  return _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(v), _mm512_set1_epi32(0x7f800000)));
}
// The codes nearest to numbers of magnitudes up to 448. Adding 2^20 times a number's power of two leaves three bits of
// fraction in the last bits of the sum; below 2^-6 the steps are those of subnormal numbers.
static inline void store_nearest_e4m3(uint8_t* p, Vec v) {
  const __m512i least = _mm512_castps_si512(splat(0x1p-6f)), bits = _mm512_castps_si512(v);
  const __m512i power = _mm512_max_epi32(_mm512_castps_si512(power_of(v)), least);
  const __m512i magic = _mm512_add_epi32(power, _mm512_set1_epi32(20 << 23));
  const __m512i fraction = _mm512_sub_epi32(_mm512_castps_si512(add(_mm512_abs_ps(v), _mm512_castsi512_ps(magic))), magic);
  const __m512i exponent = _mm512_srli_epi32(_mm512_sub_epi32(power, least), 20);  // 8 for each power of two
  const __m512i magnitude = _mm512_add_epi32(exponent, fraction);
  const __m512i sign = _mm512_maskz_srli_epi32(_mm512_test_epi32_mask(magnitude, magnitude), bits, 24);  // zero has none
  _mm_storeu_si128((__m128i*)p, _mm512_cvtepi32_epi8(_mm512_ternarylogic_epi32(magnitude, sign, _mm512_set1_epi32(0x80), 0xf8)));  // a | (b & c)
}
static inline Vec magnitude(Vec v) { return _mm512_abs_ps(v); }
// The greater of magnitudes by their bits: what is not finite is above all numbers.
static inline Vec greater(Vec a, Vec b) {
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_castps_si512(a), _mm512_castps_si512(b)));
}
static inline float greatest(Vec v) { return _mm512_cvtss_f32(_mm512_castsi512_ps(_mm512_set1_epi32(_mm512_reduce_max_epi32(_mm512_castps_si512(v))))); }
// Pairs of numbers that are bf16 already
static inline PairVec exact_pairs(Vec even, Vec odd) {
  return _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(_mm512_castps_si512(even), 16), _mm512_castps_si512(odd));
}

// v / scale, rounded as a division is: Newton's steps with exact remainders (Markstein 1990) are several times as fast.
// Remainders of numbers under the smallest scales would be subnormal, and those are divided.
struct Divisor {
  Vec scale, reciprocal;
  bool exact;
  explicit Divisor(Vec scale)
      : scale(scale), reciprocal(div(splat(1.0f), scale)), exact(_mm512_cmp_ps_mask(scale, splat(0x1p-90f), _CMP_LT_OQ) == 0) {}
  explicit Divisor(float scale) : scale(splat(scale)), reciprocal(splat(1.0f / scale)), exact(scale >= 0x1p-90f) {}
  Vec divide(Vec v) const {
    if (!exact) return div(v, scale);
    Vec q = mul(v, reciprocal);
    q = fma(_mm512_fnmadd_ps(q, scale, v), reciprocal, q);
    return fma(_mm512_fnmadd_ps(q, scale, v), reciprocal, q);
  }
};

#else

// e4m3 and f32 have their exponents and fractions in the same order: 16 codes are shifted, and rebiased by a product.
static inline Vec load_e4m3(const uint8_t* p) {
  uint32_t bits[kLanes];
  for (int i = 0; i < kLanes; ++i) bits[i] = (p[i] & 0x80u) << 24 | (p[i] & 0x7fu) << 20;
  float floats[kLanes];
  memcpy(floats, bits, sizeof bits);
  return mul(load(floats), splat(0x1p120f));
}
static inline Vec power_of(Vec v) {
  float floats[kLanes];
  uint32_t bits[kLanes];
  store(floats, v);
  memcpy(bits, floats, sizeof bits);
  for (uint32_t& word : bits) word &= 0x7f800000u;
  memcpy(floats, bits, sizeof bits);
  return load(floats);
}
static inline Vec magnitude(Vec v) {
  float floats[kLanes];
  store(floats, v);
  for (float& x : floats) x = std::fabs(x);
  return load(floats);
}
static inline Vec greater(Vec a, Vec b) {
  int32_t bits[kLanes], others[kLanes];
  memcpy(bits, &a, sizeof bits);
  memcpy(others, &b, sizeof others);
  for (int i = 0; i < kLanes; ++i) bits[i] = bits[i] > others[i] ? bits[i] : others[i];
  memcpy(&a, bits, sizeof bits);
  return a;
}
static inline float greatest(Vec v) {
  int32_t bits[kLanes];
  memcpy(bits, &v, sizeof bits);
  for (int i = 1; i < kLanes; ++i) bits[0] = bits[i] > bits[0] ? bits[i] : bits[0];
  float x;
  memcpy(&x, bits, sizeof x);
  return x;
}
static inline PairVec exact_pairs(Vec even, Vec odd) { return to_pairs(even, odd); }
struct Divisor {
  Vec scale;
  explicit Divisor(Vec scale) : scale(scale) {}
  explicit Divisor(float scale) : scale(splat(scale)) {}
  Vec divide(Vec v) const { return div(v, scale); }
};

#endif

// The e4m3 numbers nearest to numbers of magnitudes up to 448, ties to even. Adding and taking away 1.5 · 2^20 times a
// number's power of two leaves its three bits of fraction; below 2^-6 the steps are those of subnormal numbers.
static inline Vec round_to_e4m3(Vec v) {
  const Vec magic = mul(max(power_of(v), splat(0x1p-6f)), splat(0x1.8p20f));
  return sub(add(v, magic), magic);
}

#if !defined(FARTHING_avx512)
// e4m3 and f32 have their exponents and fractions in the same order.
static inline void store_nearest_e4m3(uint8_t* p, Vec v) {
  float floats[kLanes];
  uint32_t bits[kLanes];
  store(floats, mul(round_to_e4m3(v), splat(0x1p-120f)));
  memcpy(bits, floats, sizeof bits);
  for (int i = 0; i < kLanes; ++i) p[i] = static_cast<uint8_t>((bits[i] >> 24 & 0x80) | (bits[i] >> 20 & 0x7f));
}
#endif

static inline Vec load_e4m3_up_to(const uint8_t* p, int lanes) {
  if (lanes == kLanes) return load_e4m3(p);
  uint8_t padded[kLanes] = {};
  memcpy(padded, p, lanes);
  return load_e4m3(padded);
}
static inline void store_nearest_e4m3_up_to(uint8_t* p, Vec v, int lanes) {
  if (lanes == kLanes) return store_nearest_e4m3(p, v);
  uint8_t all[kLanes];
  store_nearest_e4m3(all, v);
  memcpy(p, all, lanes);
}

static inline int min(int a, int b) { return a < b ? a : b; }

// The scale of a tile or block whose greatest magnitude is `most`: most / 448, or the next power of two above it.
static inline float e4m3_scale(float most, bool power_of_two) {
  if (most == 0) return 1;
  float scale = most / kMostE4m3;
  if (scale < 0x1p-126f) scale = 0x1p-126f;
  if (!power_of_two) return scale;
  int exponent;
  return std::frexp(scale, &exponent) == 0.5f ? scale : std::ldexp(1.0f, exponent);
}

static inline void raise(const View& fault) { __atomic_store_n(fault.i32(), 1, __ATOMIC_RELAXED); }

// Up to 16 * VECS numbers of a row, in registers. Numbers that are not finite raise the fault and count as 0.
template <int VECS>
struct RowTile {
  Vec numbers[VECS];
  Vec most = zero();
  int last;  // lanes of the last vector

  RowTile(const float* from, int count, const View& fault) : last(count - (VECS - 1) * kLanes) {
    for (int i = 0; i < VECS; ++i) {
      numbers[i] = i < VECS - 1 ? load(from + i * kLanes) : load_up_to(from + i * kLanes, last);
      most = greater(most, magnitude(numbers[i]));
    }
    if (!std::isfinite(greatest(most))) clean(fault);
  }

  void put(uint8_t* codes, const Divisor& divisor) const {
    for (int i = 0; i < VECS - 1; ++i) store_nearest_e4m3(codes + i * kLanes, divisor.divide(numbers[i]));
    store_nearest_e4m3_up_to(codes + (VECS - 1) * kLanes, divisor.divide(numbers[VECS - 1]), last);
  }

 private:
  void clean(const View& fault) {
    raise(fault);
    most = zero();
    for (Vec& each : numbers) {
      float lanes[kLanes];
      store(lanes, each);
      for (float& x : lanes)
        if (!std::isfinite(x)) x = 0;
      each = load(lanes);
      most = greater(most, magnitude(each));
    }
  }
};

// Calls body(integral_constant<VECS>) for the vectors that hold `count` numbers of a tile, at least 1.
template <class Body>
static inline void with_vecs(int count, Body body) {
  const int vecs = (count + kLanes - 1) / kLanes;
  [&]<int... V>(std::integer_sequence<int, V...>) {
    ((vecs == V + 1 ? body(std::integral_constant<int, V + 1>{}) : void()), ...);
  }(std::make_integer_sequence<int, kScaleBlock / kLanes>{});
}

// [codes fp8, scales f32 [R, ceil(k/128)], fault i32 [1, 1]] <- [x f32 [R, k]], scalars: powers of two.
// fault becomes 1 where x has a number that is not finite; such numbers count as 0.
static void fp8_quantise(const Op& op, const Context& ctx) {
  const View &codes = op.views[0], &scales = op.views[1], &fault = op.views[2], &x = op.views[3];
  const bool power_of_two = op.scalars[0] != 0;
  each_row(op, ctx, x, [&](int64_t r) {
    for (int first = 0; first < x.cols; first += kScaleBlock) {
      const int count = min(x.cols - first, kScaleBlock);
      with_vecs(count, [&](auto vecs) {
        const RowTile<vecs.value> tile(x.f32(r) + first, count, fault);
        const float scale = e4m3_scale(greatest(tile.most), power_of_two);
        scales.f32(r)[first / kScaleBlock] = scale;
        tile.put(codes.u8(r) + first, Divisor(scale));
      });
    }
  });
}

// [x f32] <- [codes, scales]
static void fp8_restore(const Op& op, const Context& ctx) {
  const View &x = op.views[0], &codes = op.views[1], &scales = op.views[2];
  each_row(op, ctx, x, [&](int64_t r) {
    each_vec(0, x.cols, [&](int c, int lanes) {
      const Vec scale = splat(scales.f32(r)[c / kScaleBlock]);
      store_up_to(x.f32(r) + c, mul(load_e4m3_up_to(codes.u8(r) + c, lanes), scale), lanes);
    });
  });
}

// A block of 128 x 128 codes, zero beyond the weight, into the panels of [n, k], where it begins at output n and depth k.
static inline void pack_block(const View& packed, const uint8_t* codes, int n, int k) {
  const int quads = min(padded_depth(packed) - k, kScaleBlock) / 4;
  for (int row = 0; row < kScaleBlock && n + row < packed.times; row += kLanes) {
    Pair* to = reinterpret_cast<Pair*>(panel_to(packed, (n + row) / kLanes)) + k / 4 * kLanes;
    for (int first = 0; first < quads; first += kLanes) {
      PairVec block[kLanes];
      for (int lane = 0; lane < kLanes; ++lane)
        block[lane] = load(reinterpret_cast<const Pair*>(codes + (row + lane) * kScaleBlock) + first);
      transpose(block);
      for (int i = 0; i < kLanes && first + i < quads; ++i) store(to + (first + i) * kLanes, quad_order(block[i]));
    }
  }
}

// The same of the transpose: four rows of the block are the bytes of a quad's words.
static inline void pack_block_transposed(const View& packed, const uint8_t* codes, int n, int k) {
  const int quads = min(padded_depth(packed) - k, kScaleBlock) / 4;
  for (int column = 0; column < kScaleBlock && n + column < packed.times; column += kLanes) {
    Pair* to = reinterpret_cast<Pair*>(panel_to(packed, (n + column) / kLanes)) + k / 4 * kLanes;
    for (int quad = 0; quad < quads; ++quad) {
      const uint8_t* from = codes + quad * 4 * kScaleBlock + column;
      Pair words[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) {
        const auto code = [&](int i) { return static_cast<Pair>(from[i * kScaleBlock + lane]) << 8 * i; };
        words[lane] = code(0) | code(1) | code(2) | code(3);
      }
      store(to + quad * kLanes, quad_order(load(words)));
    }
  }
}

// [packed_fp8 [n, k], scales f32 [ceil(n/128), ceil(k/128)], the same of the transpose, fault] <- [w f32 [n, k]]
static void fp8_quantise_weight(const Op& op, const Context& ctx) {
  const View &packed = op.views[0], &scales = op.views[1], &turned = op.views[2], &turned_scales = op.views[3];
  const View &fault = op.views[4], &w = op.views[5];
  const bool power_of_two = op.scalars[0] != 0;
  const int across = scales.cols;
  uint8_t* codes = ctx.local<uint8_t>(kScaleBlock * kScaleBlock);
  ctx.parallel(op, static_cast<int64_t>(scales.times) * across, 1, [&](int64_t item, int64_t) {
    const int block = static_cast<int>(item / across), at = static_cast<int>(item % across);
    const int n = block * kScaleBlock, rows = min(w.times - n, kScaleBlock);
    const int k = at * kScaleBlock, columns = min(w.cols - k, kScaleBlock);
    if (rows < kScaleBlock || columns < kScaleBlock) memset(codes, 0, kScaleBlock * kScaleBlock);
    with_vecs(columns, [&](auto vecs) {
      using Tile = RowTile<vecs.value>;
      Vec most = zero();
      for (int r = 0; r < rows; ++r) most = greater(most, Tile(w.f32(n + r) + k, columns, fault).most);
      const float scale = e4m3_scale(greatest(most), power_of_two);
      scales.f32(block)[at] = turned_scales.f32(at)[block] = scale;
      const Divisor divisor(scale);
      for (int r = 0; r < rows; ++r) Tile(w.f32(n + r) + k, columns, fault).put(codes + r * kScaleBlock, divisor);
    });
    pack_block(packed, codes, n, k);
    pack_block_transposed(turned, codes, k, n);
  });
}
