/**
 * FP8 e4m3fn (Micikevicius et al. 2022, §3.1): 4 exponent bits with bias 7, 3 fraction bits, largest value 448, no
 * infinities, NaN only as 0x7F and 0xFF, subnormals in steps of 2^-9.
 */

export const E4M3_MAX = 448;

/** The value of each of the 256 codes. */
export const E4M3_VALUES: Float32Array = Float32Array.from({ length: 256 }, (_, code) => {
  const sign = code & 0x80 ? -1 : 1;
  const exponent = (code >> 3) & 15;
  const fraction = code & 7;
  if (exponent === 15 && fraction === 7) return Number.NaN;
  return exponent === 0 ? sign * fraction * 2 ** -9 : sign * (8 + fraction) * 2 ** (exponent - 10);
});

const float = new Float32Array(1);
const bits = new Uint32Array(float.buffer);

/** The code nearest to a float32; ties to the even code. Past 448, infinities included, it saturates; NaN is 0x7F. */
export function float32ToE4m3(value: number): number {
  float[0] = value;
  const word = bits[0]!;
  const sign = (word >>> 24) & 0x80;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) return 0x7f;
  if (magnitude >= 0x43e00000) return sign | 0x7e; // 448
  if (magnitude >= 0x3c800000) {
    // 2^-6, the least normal number: a code is the float's exponent and first three fraction bits, biased by 120 less
    return sign | (((magnitude + 0x7ffff + ((magnitude >>> 20) & 1)) >>> 20) - (120 << 3));
  }
  // steps of 2^-9: a float32 of this size has no bits below, so the sum rounds to them, ties to even
  float[0] = Math.abs(value) + 2 ** 14;
  return sign | (bits[0]! & 0xff);
}

/** Index of the first NaN code (0x7F or 0xFF) in `codes`, or -1. */
export function indexOfE4m3NaN(codes: Uint8Array): number {
  const firstBetween = (from: number, to: number) => {
    for (let i = from; i < to; i++) if ((codes[i]! & 0x7f) === 0x7f) return i;
    return -1;
  };
  // Four codes a step; the few before the first aligned word and after the last go one by one.
  const unaligned = (4 - (codes.byteOffset % 4)) % 4;
  if (codes.length < unaligned + 4) return firstBetween(0, codes.length);
  const words = new Uint32Array(codes.buffer, codes.byteOffset + unaligned, (codes.length - unaligned) >> 2);
  const before = firstBetween(0, unaligned);
  if (before >= 0) return before;
  for (let i = 0; i < words.length; i++) {
    // Adding one carries into the top bit of a byte only where its other seven were all set.
    if ((((words[i]! & 0x7f7f7f7f) + 0x01010101) & 0x80808080) !== 0) {
      return firstBetween(unaligned + 4 * i, unaligned + 4 * i + 4);
    }
  }
  return firstBetween(unaligned + 4 * words.length, codes.length);
}
