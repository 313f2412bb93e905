/** Counter-based random numbers for training: every draw is a function of (seed, stream, index). */

/** 32 random bits: three rounds of the murmur3 finaliser over the mixed counters. */
export function randomBits(seed: number, stream: number, index: number): number {
  let h = mix((seed ^ 0x9e3779b9) >>> 0);
  h = mix((h + Math.imul(stream, 0x85ebca6b)) >>> 0);
  return mix((h + Math.imul(index, 0xc2b2ae35) + Math.floor(index / 2 ** 32)) >>> 0);
}

function mix(bits: number): number {
  let h = bits;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Fills `out` with normal numbers of mean 0 and the given deviation (Box–Muller). */
export function normal(out: Float32Array, seed: number, stream: number, deviation: number): void {
  for (let i = 0; i < out.length; i += 2) {
    const radius = Math.sqrt(-2 * Math.log((randomBits(seed, stream, i) + 1) / 2 ** 32)) * deviation;
    const angle = (2 * Math.PI * randomBits(seed, stream, i + 1)) / 2 ** 32;
    out[i] = radius * Math.cos(angle);
    if (i + 1 < out.length) out[i + 1] = radius * Math.sin(angle);
  }
}

/** A permutation of 0 … count − 1 (Fisher–Yates). */
export function shuffled(count: number, seed: number, stream: number): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor((randomBits(seed, stream, i) / 2 ** 32) * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
