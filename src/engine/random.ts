/**
 * Counter-based random numbers: the draw for a token is a function of (seed, position) alone, so it does not
 * depend on the batch, on how the prompt was chunked, or on whether the request was interrupted and resumed.
 */

const MASK = (1n << 64n) - 1n;
const GAMMA = 0x9e3779b97f4a7c15n;

/** A number in [0, 1) with 53 random bits for token position `position` of the stream `seed`. */
export function uniform(seed: number | bigint, position: number): number {
  const stream = splitMix64(BigInt.asUintN(64, BigInt(seed)), 0);
  return Number(splitMix64(stream, position) >> 11n) * 2 ** -53;
}

/** Output `counter` (from 0) of SplitMix64 seeded with `seed` (Steele, Lea, Flood 2014, figure 13). */
export function splitMix64(seed: bigint, counter: number): bigint {
  let z = (seed + GAMMA * (BigInt(counter) + 1n)) & MASK;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return z ^ (z >> 31n);
}
