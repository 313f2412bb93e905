// A chunk of rows (keys, values, queries or gradients) as one factor of the products of causal attention: as it lies
// in memory, or, for products of bf16 pairs, rounded into copies.

struct CausalOperand {
  struct Piece {
    const float* data;  // first row of the chunk
    int64_t stride;
    int dim;
  };
  Piece pieces[2];  // their columns follow each other; the second may be empty
  int count;        // rows
  uint16_t* narrow = nullptr;  // pairs: [kChunk][padded] bf16
  Pair* zipped = nullptr;      // pairs: [kChunk / 2][padded], two neighbouring rows of a column side by side

  // Depths whose last step of tiles can be filled up with zeros in the room of the columns.
  static bool in_tiles(int depth) { return kHasTiles && depth >= kTilePairs; }
  static int padded(int dim) { return in_tiles(dim) ? (dim + 2 * kTilePairs - 1) / (2 * kTilePairs) * 2 * kTilePairs : to_lanes(dim); }
  static size_t floats(int dim) { return static_cast<size_t>(kChunk) * padded(dim); }

  int dim() const { return pieces[0].dim + pieces[1].dim; }
  bool pairs() const { return narrow != nullptr; }

  // Rounds the chunk into `memory` of floats(dim()) numbers.
  void round_into(float* memory) {
    const int cols = padded(dim());
    narrow = reinterpret_cast<uint16_t*>(memory);
    zipped = reinterpret_cast<Pair*>(memory + kChunk / 2 * cols);
    for (int j = 0; j < count; ++j) {
      uint16_t* to = narrow + j * cols;
      memset(to + dim(), 0, (cols - dim()) * sizeof(uint16_t));
      narrow_row(to, pieces[0].data + j * pieces[0].stride, pieces[0].dim);
      if (pieces[1].dim) narrow_row(to + pieces[0].dim, pieces[1].data + j * pieces[1].stride, pieces[1].dim);
    }
    zip_rows(zipped, [&](int j) { return narrow + j * cols; }, count, cols);
  }

  // out[j][lane] = sum over d of x[j][d] * columns[d][lane]; columns in pairs if the operand is
  void times_columns(float* out, const float* columns) const {
    if (pairs()) {
      const int cols = padded(dim());
      const auto rows = [&](int n) { return reinterpret_cast<const Pair*>(narrow + n * cols); };
      score_pairs(out, count, rows, cols / 2, reinterpret_cast<const Pair*>(columns), kBlockRows, kBlockRows,
                  in_tiles(dim()) ? cols / 2 : (dim() + 1) / 2);
      return;
    }
    const auto& [own, more] = pieces;
    product<Order::Rows>(out, count, own.data, own.stride, columns, kBlockRows, kBlockRows, own.dim, from_zero);
    if (more.dim)
      product<Order::Rows>(out, count, more.data, more.stride, columns + own.dim * kBlockRows, kBlockRows, kBlockRows,
                           more.dim, from_out);
  }

  // out[d][lane] = start + sum over j of x[j][d] * columns[j][lane]
  template <class Start>
  void transposed_times_columns(float* out, const float* columns, Start start) const {
    if (pairs()) {
      mix_pairs(out, dim(), zipped, padded(dim()), reinterpret_cast<const Pair*>(columns), kBlockRows, kBlockRows,
                (count + 1) / 2, start);
      return;
    }
    for (const Piece& piece : pieces) {
      product<Order::Transposed>(out, piece.dim, piece.data, piece.stride, columns, kBlockRows, kBlockRows, count,
                                 start);
      out += piece.dim * kBlockRows;
    }
  }
};
