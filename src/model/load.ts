/** From a checkpoint folder to a model whose graphs can be built and run. */
import type { Compute } from '../backend/graph.ts';
import { openCheckpoint } from './checkpoint.ts';
import type { ModelConfig } from './config.ts';
import { type PackedWeights, packedWeights } from './packed-weights.ts';
import { type RopeSettings, ropeFrequencies } from './rope.ts';

export interface Model {
  readonly folder: string;
  readonly config: ModelConfig;
  readonly rope: RopeSettings;
  readonly compute: Compute;
  readonly weights: PackedWeights;
}

/**
 * Opens a Hugging Face checkpoint folder and checks every tensor; weights are read when a graph asks for them.
 * @param compute `fast` (BF16 operands, FP32 sums) or `f32` (FP32 activations: the reference)
 * @throws CheckpointError, ConfigError naming file, tensor or field, expected and found
 */
export async function openModel(folder: string, { compute = 'fast' }: { compute?: Compute } = {}): Promise<Model> {
  const checkpoint = await openCheckpoint(folder);
  const { config } = checkpoint;
  return { folder, config, compute, rope: ropeFrequencies(config), weights: packedWeights(checkpoint, compute) };
}
