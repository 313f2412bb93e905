/** Bytes of memory that decoding reads: the floor under the time of a token. */
import type { CacheDType, Compute } from '../backend/graph.ts';
import type { Checkpoint } from '../model/checkpoint.ts';
import { cacheBytesPerToken } from '../model/forward.ts';
import { weightCatalogue } from '../model/weight-catalogue.ts';

export interface StepBytes {
  /** Weights that one step of the batch reads, divided by its sequences. */
  readonly weights: number;
  /** Cache entries of the context. */
  readonly cache: number;
}

/**
 * Per token, for steps that decode one token of each of `batch` sequences with `depth` tokens of context. The experts
 * that a batch wakes are counted as if it routed evenly: a share 1 − (1 − k/E)^batch of all.
 */
export function bytesPerToken(
  checkpoint: Checkpoint,
  { compute, cacheDtype }: { compute: Compute; cacheDtype: CacheDType },
  { depth, batch }: { depth: number; batch: number },
): StepBytes {
  const { config } = checkpoint;
  const woken =
    config.family === 'deepseek' && config.nRoutedExperts > 0
      ? 1 - (1 - config.numExpertsPerTok / config.nRoutedExperts) ** batch
      : 1;
  let weights = 0;
  for (const { name, shape, role } of weightCatalogue(config)) {
    if (!checkpoint.has(name) || isMtp(name, config.numHiddenLayers)) continue;
    if (role === 'embedding' && !config.tieWordEmbeddings) continue;
    const values = shape.reduce((product, size) => product * size, 1);
    const { dtype } = checkpoint.header(name);
    const valueBytes =
      role === 'router'
        ? 4
        : dtype === 'NVFP4'
          ? 9 / 16
          : dtype === 'F8_E4M3'
            ? 1
            : dtype === 'BF16' || compute === 'fast'
              ? 2
              : 4;
    weights += values * valueBytes * (role === 'expert' ? woken : 1);
  }
  return { weights: weights / batch, cache: depth * cacheBytesPerToken(config, cacheDtype) };
}

function isMtp(name: string, layers: number): boolean {
  return Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? -1) >= layers;
}
