// Matrix tiles of the processor (AMX): eight registers of 16 rows of 64 bytes, and one instruction that multiplies two.
//   a: 16 rows of 16 pairs of bf16;  b: 16 pairs of k, each of 16 outputs;  c += a · b: 16 rows of 16 f32.
// An element of c takes the even and the odd members of the 16 pairs as two chains from zero, and then adds both; so a
// row depends neither on the rows beside it nor on what is added in whole zero pairs. Subnormals are taken as zero.

#if defined(FARTHING_amx)
constexpr bool kHasTiles = true;
#else
constexpr bool kHasTiles = false;
struct Tiles {
  explicit Tiles(int64_t) {}
};
#endif

constexpr int kTileRows16 = 16;                       // rows of every tile
constexpr int kTilePairs = 16;                        // pairs of k in one step
constexpr int kTileBytes = kTileRows16 * 64;

#if defined(FARTHING_amx)

template <int TILE>
static inline void tile_zero() {
  asm volatile("tilezero %%tmm%c0" ::"i"(TILE));
}
template <int TILE>
static inline void tile_load(const void* from, int64_t stride_bytes) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(TILE) : "memory");
}
template <int TILE>
static inline void tile_read(const void* from, int64_t stride_bytes) {  // a load that the compiler does not order with stores
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride_bytes), "i"(TILE));
}
template <int TILE>
static inline void tile_store(void* to, int64_t stride_bytes) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride_bytes), "i"(TILE) : "memory");
}
template <int C, int A, int B>
static inline void tile_multiply() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

// Tiles can be used while it lives, and vectors flush subnormals as tiles do; a thread's kernel holds one. Where a and c
// need but a few rows, they have no more.
struct Tiles {
  explicit Tiles(int64_t most_rows) {
    const uint8_t m = most_rows < kTileRows16 ? static_cast<uint8_t>(most_rows) : kTileRows16;
    const struct {
      uint8_t palette = 1, start = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16];
    } shapes{.rows = {m, m, m, m, m, m, kTilePairs, kTilePairs}};  // c, c, c, c, a, a, b, b
    asm volatile("ldtilecfg %0" ::"m"(shapes));
    const uint32_t flushing = before_ | 0x8040;  // subnormal results and operands are zero
    asm volatile("ldmxcsr %0" ::"m"(flushing) : "memory");
  }
  Tiles(const Tiles&) = delete;
  ~Tiles() {
    asm volatile("tilerelease");
    asm volatile("ldmxcsr %0" ::"m"(before_) : "memory");
  }

 private:
  const uint32_t before_ = _mm_getcsr();
};

// c[i][j] += a[i] · b[j] over steps of 16 pairs, for ROWS x COLUMNS tiles, ROWS * COLUMNS <= 4; register
// i * COLUMNS + j holds c[i][j]. Of a: how far its rows, its tiles and its steps lie apart; of b: its rows.
template <int ROWS, int COLUMNS>
[[gnu::always_inline]] static inline void tile_steps(const Pair* a, int64_t row, int64_t tile, int64_t step, const uint8_t* const* b,
                                                     int steps, int64_t b_row_bytes = 64) {
  static_assert(ROWS <= 2 && ROWS * COLUMNS <= 4);
  const Pair* second = a + tile;
  const uint8_t *b0 = b[0], *b1 = b[COLUMNS > 1], *b2 = b[COLUMNS > 2 ? 2 : 0], *b3 = b[COLUMNS > 3 ? 3 : 0];
  asm volatile("" ::: "memory");  // what was stored is read by what follows, which says so no more
  for (; steps > 0; --steps, a += step, second += step) {
    tile_read<4>(a, row * sizeof(Pair));
    if constexpr (ROWS == 2) tile_read<5>(second, row * sizeof(Pair));
    const auto column = [&]<int J>(std::integral_constant<int, J>, const uint8_t*& from) [[gnu::always_inline]] {
      tile_read<6 + J % 2>(from, b_row_bytes);
      tile_multiply<J, 4, 6 + J % 2>();
      if constexpr (ROWS == 2) tile_multiply<COLUMNS + J, 5, 6 + J % 2>();
      from += kTilePairs * b_row_bytes;
    };
    column(std::integral_constant<int, 0>{}, b0);
    if constexpr (COLUMNS > 1) column(std::integral_constant<int, 1>{}, b1);
    if constexpr (COLUMNS > 2) column(std::integral_constant<int, 2>{}, b2);
    if constexpr (COLUMNS > 3) column(std::integral_constant<int, 3>{}, b3);
  }
}

// Calls each(integral_constant<TILE>, i, j) for the tiles of c.
template <int ROWS, int COLUMNS, class Each>
static inline void each_sum_tile(Each each) {
  [&]<int... T>(std::integer_sequence<int, T...>) {
    (each(std::integral_constant<int, T>{}, T / COLUMNS, T % COLUMNS), ...);
  }(std::make_integer_sequence<int, ROWS * COLUMNS>{});
}

// Starts c[i][j] at zero.
template <int ROWS, int COLUMNS>
static inline void clear_tiles() {
  each_sum_tile<ROWS, COLUMNS>([](auto t, int, int) { tile_zero<t.value>(); });
}

template <int ROWS, int COLUMNS>
static inline void load_tiles(const float* from, int64_t stride) {
  each_sum_tile<ROWS, COLUMNS>([&](auto t, int i, int j) {
    tile_load<t.value>(from + i * kTileRows16 * stride + j * kLanes, stride * sizeof(float));
  });
}

// Stores c as ROWS * 16 rows, `stride` floats apart.
template <int ROWS, int COLUMNS>
static inline void store_tiles(float* to, int64_t stride) {
  each_sum_tile<ROWS, COLUMNS>([&](auto t, int i, int j) {
    tile_store<t.value>(to + i * kTileRows16 * stride + j * kLanes, stride * sizeof(float));
  });
}

#endif
