// e4m3 (OCP 8-bit floating point: bias 7, no infinities) to bf16, exactly: e4m3's subnormals become normal numbers,
// so nothing is lost where the processor takes subnormal bf16 as zero.

static constexpr uint16_t bf16_of_e4m3(uint8_t code) {
  constexpr uint16_t subnormals[8] = {0x0000, 0x3B00, 0x3B80, 0x3BC0, 0x3C00, 0x3C20, 0x3C40, 0x3C60};
  const uint16_t magnitude = code & 0x7f, sign = (code & 0x80) << 8;
  if (magnitude == 0x7f) return sign | 0x7fc0;
  return sign | (magnitude < 8 ? subnormals[magnitude] : (magnitude << 4) + 0x3C00);
}

// A quad is four neighbouring k of 16 outputs, 64 codes, in the order [output / 4][pair of k][output % 4][k % 2]:
// so the low and the high bytes of its two vectors of pairs are put together within 128 bits.
constexpr int kQuadBytes = 4 * kLanes;
static constexpr int quad_slot(int lane, int k) { return lane / 4 * 16 + k / 2 % 2 * 8 + lane % 4 * 2 + k % 2; }

struct Quad {
  PairVec first, second;  // k, k + 1 and k + 2, k + 3
};

// Low or high bytes of the bf16 of every magnitude.
struct ByteTable {
  alignas(64) uint8_t bytes[128];
  constexpr explicit ByteTable(int shift) : bytes() {
    for (int i = 0; i < 128; ++i) bytes[i] = static_cast<uint8_t>(bf16_of_e4m3(static_cast<uint8_t>(i)) >> shift);
  }
};
static constexpr ByteTable kLowBytes(0), kHighBytes(8);

#if defined(FARTHING_avx512)

// Words of four neighbouring k, one for each output, to the order of a quad.
static inline PairVec quad_order(PairVec words) {
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  return _mm512_shuffle_epi8(words, _mm512_broadcast_i32x4(order));
}
// The bytes of a normal number, (magnitude << 4) + 0x3C00 with the sign on top, are affine in the bits of its code; other
// codes (zero, subnormal numbers, NaN) are rare, and looked up by their seven low bits.
static inline Quad unpack_codes(__m512i codes) {
  __m512i low = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(0x0000000001020408), 0);
  __m512i high = _mm512_gf2p8affine_epi64_epi8(codes, _mm512_set1_epi64(0x1020404040404080), 0x3c);
  const __m512i rarity = _mm512_sub_epi8(_mm512_add_epi8(codes, codes), _mm512_set1_epi8(16));
  if (__builtin_expect(_mm512_cmpge_epu8_mask(rarity, _mm512_set1_epi8(static_cast<char>(2 * 0x7f - 16))) != 0, false)) {
    const auto look_up = [&](const ByteTable& table) {
      return _mm512_permutex2var_epi8(_mm512_load_si512(table.bytes), codes, _mm512_load_si512(table.bytes + 64));
    };
    low = look_up(kLowBytes);
    high = _mm512_ternarylogic_epi64(look_up(kHighBytes), codes, _mm512_set1_epi8(static_cast<char>(0x80)), 0xf8);  // a | (b & c)
  }
  return {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
}
static inline Quad load_quad(const uint8_t* p) { return unpack_codes(_mm512_loadu_si512(p)); }
// Up to 64 codes in the order of memory, then zeros.
static inline Quad load_in_order(const uint8_t* p, int count) {
  const __mmask64 wanted = count < 64 ? (uint64_t{1} << count) - 1 : ~uint64_t{0};
  return unpack_codes(_mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), _mm512_maskz_loadu_epi8(wanted, p)));
}

#elif defined(FARTHING_avx2)

static inline PairVec quad_order(PairVec words) {
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
  const __m256i both = _mm256_broadcastsi128_si256(order);
  return {_mm256_shuffle_epi8(words.lo, both), _mm256_shuffle_epi8(words.hi, both)};
}
struct HalfQuad {
  __m256i first, second;
};
static inline HalfQuad load_half_quad(const uint8_t* p) {
  const auto all = [](int byte) { return _mm256_set1_epi8(static_cast<char>(byte)); };
  const auto look_up = [](const ByteTable& table, __m256i index) {
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(_mm_load_si128((const __m128i*)table.bytes)), index);
  };
  const __m256i codes = _mm256_loadu_si256((const __m256i*)p), magnitude = _mm256_and_si256(codes, all(0x7f));
  const __m256i small = _mm256_cmpgt_epi8(all(8), magnitude), nan = _mm256_cmpeq_epi8(magnitude, all(0x7f));
  // (magnitude << 4) + 0x3C00, byte by byte
  const __m256i normal_low = _mm256_and_si256(_mm256_slli_epi16(magnitude, 4), all(0xf0));
  const __m256i normal_high = _mm256_add_epi8(_mm256_and_si256(_mm256_srli_epi16(magnitude, 4), all(0x0f)), all(0x3c));
  const __m256i low = _mm256_blendv_epi8(normal_low, look_up(kLowBytes, magnitude), small);
  const __m256i high = _mm256_or_si256(_mm256_blendv_epi8(normal_high, look_up(kHighBytes, magnitude), small),
                                       _mm256_or_si256(_mm256_and_si256(codes, all(0x80)), _mm256_and_si256(nan, all(0x7f))));
  return {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
}
static inline Quad load_quad(const uint8_t* p) {
  const HalfQuad low = load_half_quad(p), high = load_half_quad(p + 32);
  return {{low.first, high.first}, {low.second, high.second}};
}

#else

static inline PairVec quad_order(PairVec words) {
  uint8_t quad[kQuadBytes];
  for (int lane = 0; lane < kLanes; ++lane)
    for (int k = 0; k < 4; ++k) quad[quad_slot(lane, k)] = reinterpret_cast<const uint8_t*>(&words.lane[lane])[k];
  memcpy(words.lane, quad, sizeof quad);
  return words;
}
static inline Quad load_quad(const uint8_t* p) {
  Quad quad;
  const auto pair = [&](int lane, int k) {
    return bf16_of_e4m3(p[quad_slot(lane, k)]) | static_cast<uint32_t>(bf16_of_e4m3(p[quad_slot(lane, k + 1)])) << 16;
  };
  for (int lane = 0; lane < kLanes; ++lane) {
    quad.first.lane[lane] = pair(lane, 0);
    quad.second.lane[lane] = pair(lane, 2);
  }
  return quad;
}

#endif
