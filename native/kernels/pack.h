// Packed weights. A panel holds 16 outputs; panels follow each other, outputs beyond n are zero.
//   packed_f32:  panel[k][16]                f32
//   packed_bf16: panel[k / 2][16][2]         bf16, two neighbouring k of an output side by side
//   packed_fp8:  panel[k / 2][16][2]         e4m3 bytes, likewise; scales stay [ceil(n/128), ceil(k/128)] f32
// k is padded with a zero to an even number. A vector's lanes are outputs and the loop runs over k in order,
// so one row and many rows are computed by the same chain of sums (DESIGN, contract 3).
#define PACK_KERNELS
