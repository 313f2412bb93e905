/** Auxiliary-loss-free load balancing of experts (DeepSeek-V3 report §2.1.2; Wang et al., arXiv 2408.15664). */

/** Moves each expert's selection bias by `rate` towards the mean load: up where it got too few tokens, down where too many. */
export function balanceExperts(bias: Float32Array, counts: Int32Array, rate: number): void {
  const mean = counts.reduce((a, b) => a + b, 0) / counts.length;
  for (let e = 0; e < bias.length; e++) bias[e] = bias[e]! + rate * Math.sign(mean - counts[e]!);
}

/** The busiest expert's load over the mean: 1 is perfect balance. */
export function loadImbalance(counts: Int32Array): number {
  const total = counts.reduce((a, b) => a + b, 0);
  return total === 0 ? 1 : (counts.reduce((a, b) => Math.max(a, b), 0) * counts.length) / total;
}

/** Each expert's load over the mean, in percent: 100 is its share. Short to write, and exact enough to look at. */
export function loadPercents(counts: Int32Array): number[] {
  const total = counts.reduce((a, b) => a + b, 0);
  return Array.from(counts, (count) => Math.round((100 * count * counts.length) / Math.max(total, 1)));
}
