// NVFP4: e2m1 codes (0, 0.5, 1, 1.5, 2, 3, 4, 6 and a sign) of which 16 neighbouring k of an output share an e4m3 scale;
// all share an f32 scale. Every e2m1 value is exact in bf16.

constexpr int kFourBlock = 16;       // k that share a scale
constexpr int kOctetBytes = 8 * kLanes / 2;

// An octet is eight neighbouring k of 16 outputs, 64 bytes in the order of a quad: the low half of a byte is for the
// first four k, the high half for the next.
struct Octet {
  Quad first, second;
};

// Low or high bytes of the bf16 of every code, four times over.
struct FourTable {
  alignas(64) uint8_t bytes[64];
  constexpr explicit FourTable(int shift) : bytes() {
    constexpr uint16_t magnitudes[8] = {0x0000, 0x3F00, 0x3F80, 0x3FC0, 0x4000, 0x4040, 0x4080, 0x40C0};
    for (int i = 0; i < 64; ++i) bytes[i] = static_cast<uint8_t>((magnitudes[i & 7] | (i & 8) << 12) >> shift);
  }
};
static constexpr FourTable kLowFours(0), kHighFours(8);

#if defined(FARTHING_avx512)

static inline Quad quad_of_fours(__m512i codes) {
  const __m512i low = _mm512_shuffle_epi8(_mm512_load_si512(kLowFours.bytes), codes);
  const __m512i high = _mm512_shuffle_epi8(_mm512_load_si512(kHighFours.bytes), codes);
  return {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
}
static inline Octet load_octet(const uint8_t* p) {
  const __m512i both = _mm512_loadu_si512(p), half = _mm512_set1_epi8(15);
  return {quad_of_fours(_mm512_and_si512(both, half)), quad_of_fours(_mm512_and_si512(_mm512_srli_epi16(both, 4), half))};
}
// Sixteen positive e4m3 codes as floats: rebiased; a subnormal m / 8 · 2^-6 then reads (1 + m / 8) · 2^-7.
static inline Vec load_scales(const uint8_t* p) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
  const Vec rebiased = _mm512_castsi512_ps(_mm512_add_epi32(_mm512_slli_epi32(wide, 20), _mm512_set1_epi32(120 << 23)));
  return _mm512_mask_fmadd_ps(rebiased, _mm512_cmplt_epu32_mask(wide, _mm512_set1_epi32(8)), splat(2.0f), splat(-0x1p-6f));
}

#elif defined(FARTHING_avx2)

static inline HalfQuad half_quad_of_fours(__m256i codes) {
  const __m256i low = _mm256_shuffle_epi8(_mm256_load_si256((const __m256i*)kLowFours.bytes), codes);
  const __m256i high = _mm256_shuffle_epi8(_mm256_load_si256((const __m256i*)kHighFours.bytes), codes);
  return {_mm256_unpacklo_epi8(low, high), _mm256_unpackhi_epi8(low, high)};
}
static inline Octet load_octet(const uint8_t* p) {
  const __m256i half = _mm256_set1_epi8(15);
  const auto first = [&](const uint8_t* at) { return half_quad_of_fours(_mm256_and_si256(_mm256_loadu_si256((const __m256i*)at), half)); };
  const auto second = [&](const uint8_t* at) {
    return half_quad_of_fours(_mm256_and_si256(_mm256_srli_epi16(_mm256_loadu_si256((const __m256i*)at), 4), half));
  };
  const HalfQuad a = first(p), b = first(p + 32), c = second(p), d = second(p + 32);
  return {{{a.first, b.first}, {a.second, b.second}}, {{c.first, d.first}, {c.second, d.second}}};
}
static inline Vec load_scales(const uint8_t* p) {
  const auto widen = [](const uint8_t* at) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)at)), 20));
  };
  return mul({widen(p), widen(p + 8)}, splat(0x1p120f));
}

#else

static inline Octet load_octet(const uint8_t* p) {
  Octet octet;
  const auto pair = [&](int lane, int k, int shift) {
    const int even = p[quad_slot(lane, k)] >> shift & 15, odd = p[quad_slot(lane, k + 1)] >> shift & 15;
    const auto bf16 = [](int code) { return kLowFours.bytes[code] | static_cast<uint32_t>(kHighFours.bytes[code]) << 8; };
    return bf16(even) | bf16(odd) << 16;
  };
  for (int lane = 0; lane < kLanes; ++lane) {
    octet.first.first.lane[lane] = pair(lane, 0, 0);
    octet.first.second.lane[lane] = pair(lane, 2, 0);
    octet.second.first.lane[lane] = pair(lane, 0, 4);
    octet.second.second.lane[lane] = pair(lane, 2, 4);
  }
  return octet;
}
static inline Vec load_scales(const uint8_t* p) {
  float scales[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    const uint32_t bits = static_cast<uint32_t>(bf16_of_e4m3(p[lane])) << 16;
    memcpy(scales + lane, &bits, 4);
  }
  return load(scales);
}

#endif
