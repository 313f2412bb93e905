/** Learning rate and batch size by step. The rate: linear warm-up, then cosine, or warm-up, stable, decay (WSD, MiniCPM §4). */

export interface Schedule {
  readonly shape: 'cosine' | 'wsd';
  readonly peak: number;
  /** Final rate as a share of the peak. */
  readonly floor: number;
  readonly warmupSteps: number;
  readonly steps: number;
  /** WSD: share of all steps spent in the final decay. */
  readonly decayShare: number;
}

/** @param step from 1 to steps */
export function learningRate(step: number, { shape, peak, floor, warmupSteps, steps, decayShare }: Schedule): number {
  if (step <= warmupSteps) return (peak * step) / warmupSteps;
  const between = (from: number) => Math.min(1, Math.max(0, (step - from) / Math.max(1, steps - from)));
  if (shape === 'cosine') return peak * (floor + (1 - floor) * 0.5 * (1 + Math.cos(Math.PI * between(warmupSteps))));
  return peak * (1 - (1 - floor) * between(Math.max(warmupSteps, Math.round(steps * (1 - decayShare)))));
}

/** Micro-batches of a step: `most`, to which they grow evenly from 1 in the first `warmupSteps` steps. */
export function microBatches(step: number, most: number, warmupSteps: number): number {
  return step > warmupSteps ? most : 1 + Math.floor(((most - 1) * (step - 1)) / warmupSteps);
}
