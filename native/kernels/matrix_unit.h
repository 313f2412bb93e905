// The matrix unit of AMX: 16 rows of activations times a step of 16 pairs of k of a packed bf16 panel. A step of a panel
// lies in memory as the unit takes it. Within a step the unit adds even and odd k apart, in order, and then both to the
// sums, so an output's chain of sums depends on nothing but k: one row and many rows have the same bits.

constexpr int kStepPairs = 16;
constexpr int kStepBytes = kStepPairs * kLanes * sizeof(Pair);
constexpr int kMatrixRows = 32;    // rows and panels that keep the unit's registers in use: two by two
constexpr int kMatrixPanels = 2;

static constexpr int steps_of(int pairs) { return (pairs + kStepPairs - 1) / kStepPairs; }

#if defined(FARTHING_amx)

// Sums of 16 rows and 16 outputs.
struct alignas(64) UnitSums {
  float row[16][kLanes];
};

// While it lives, this thread may use the unit.
class MatrixUnit {
 public:
  MatrixUnit() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t bytes_in_row[16] = {};
      uint8_t rows[16] = {};
    } shape;
    for (int t = 0; t < 8; ++t) shape.bytes_in_row[t] = 64, shape.rows[t] = 16;
    _tile_loadconfig(&shape);
  }
  ~MatrixUnit() { _tile_release(); }
  MatrixUnit(const MatrixUnit&) = delete;
};

// sums[t][j] = rows 16 t to 16 t + 15 of a times panel j, over `steps` steps; step(j, s) is where step s of panel j lies.
// Rows of a are `row` pairs apart; 0 repeats one row. Tiles 0 to 3 hold sums, 4 and 5 rows, 6 and 7 panels.
template <int ROW_TILES, int PANELS, class Step>
static inline void unit_chain(const Pair* a, int64_t row, int steps, Step step, UnitSums (&sums)[2][kMatrixPanels]) {
  static_assert(ROW_TILES <= 2 && PANELS <= 2);
  const int64_t stride = row * static_cast<int64_t>(sizeof(Pair));
  _tile_zero(0);
  if constexpr (PANELS == 2) _tile_zero(1);
  if constexpr (ROW_TILES == 2) _tile_zero(2);
  if constexpr (ROW_TILES == 2 && PANELS == 2) _tile_zero(3);
  for (int s = 0; s < steps; ++s) {
    const Pair* from = a + s * kStepPairs;
    _tile_loadd(4, from, stride);
    _tile_loadd(6, step(0, s), 64);
    _tile_dpbf16ps(0, 4, 6);
    if constexpr (PANELS == 2) {
      _tile_loadd(7, step(1, s), 64);
      _tile_dpbf16ps(1, 4, 7);
    }
    if constexpr (ROW_TILES == 2) {
      _tile_loadd(5, from + 16 * row, stride);
      _tile_dpbf16ps(2, 5, 6);
    }
    if constexpr (ROW_TILES == 2 && PANELS == 2) _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums[0][0].row, 64);
  if constexpr (PANELS == 2) _tile_stored(1, sums[0][1].row, 64);
  if constexpr (ROW_TILES == 2) _tile_stored(2, sums[1][0].row, 64);
  if constexpr (ROW_TILES == 2 && PANELS == 2) _tile_stored(3, sums[1][1].row, 64);
}

constexpr bool kHasMatrixUnit = true;

#else

constexpr bool kHasMatrixUnit = false;
struct MatrixUnit {};

#endif

// Activations as pairs of bf16, for the unit.
struct UnitMode : PairMode {};
