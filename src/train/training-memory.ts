/** What a training run holds in memory, in bytes, known before its first step. */
import type { Parameters } from './parameters.ts';

export interface TrainingMemory {
  /** FP32 masters and the packed copies that forward and backward products read. */
  readonly weights: number;
  /** FP32 gradients and BF16 moments. */
  readonly optimizer: number;
  /** Planned memory of forward and backward, and of validation. */
  readonly activations: number;
  /** Tokens of a batch, whose activations those are. */
  readonly rows: number;
}

/** @param programs all that have been prepared for the run, so that every packed copy is counted */
export function trainingMemory(
  parameters: Parameters,
  programs: readonly { readonly bytes: number }[],
  rows: number,
): TrainingMemory {
  const { master, gradient, firstMoment, secondMoment } = parameters;
  const bytes = (arrays: readonly { byteLength: number }[]) => arrays.reduce((sum, each) => sum + each.byteLength, 0);
  return {
    weights: master.byteLength + parameters.packedBytes(),
    optimizer: bytes([gradient, firstMoment, secondMoment]),
    activations: programs.reduce((sum, program) => sum + program.bytes, 0),
    rows,
  };
}
