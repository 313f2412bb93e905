/** From a checkpoint folder to a model whose graphs can be built and run. */
import os from 'node:os';
import type { CacheDType, Compute } from '../backend/graph.ts';
import { type Checkpoint, openCheckpoint } from './checkpoint.ts';
import { CheckpointError } from './checkpoint-files.ts';
import type { ModelConfig } from './config.ts';
import { openPackedFile } from './packed-file.ts';
import { type PackedWeights, packedWeights } from './packed-weights.ts';
import { type RopeSettings, ropeFrequencies } from './rope.ts';

export interface Model {
  readonly folder: string;
  readonly checkpoint: Checkpoint;
  readonly config: ModelConfig;
  readonly rope: RopeSettings;
  readonly compute: Compute;
  readonly cacheDtype: CacheDType;
  readonly weights: PackedWeights;
}

export interface OpenOptions {
  /** `fast` (BF16 operands, FP32 sums) or `f32` (FP32 activations: the reference). */
  readonly compute?: Compute;
  /**
   * Type of the paged cache: `fp8` keeps latents (MLA) in FlashMLA's layout. Default: f32 in `f32` compute, else bf16.
   */
  readonly cacheDtype?: CacheDType | undefined;
  /**
   * File of packed weights, written if it is not there: weights stay on disk and are read when a product needs them.
   * Without it they are packed into memory.
   */
  readonly packedFile?: string | undefined;
  /** Called while the packed file is written, with pieces done and in all. */
  readonly onPacking?: ((done: number, total: number) => void) | undefined;
}

/**
 * Opens a Hugging Face checkpoint folder and checks every tensor; weights are read when a graph asks for them.
 * @throws CheckpointError, ConfigError naming file, tensor or field, expected and found
 */
export async function openModel(folder: string, options: OpenOptions = {}): Promise<Model> {
  const { compute = 'fast', packedFile, onPacking } = options;
  const { cacheDtype = compute === 'f32' ? 'f32' : 'bf16' } = options;
  const checkpoint = await openCheckpoint(folder);
  const { config } = checkpoint;
  if (cacheDtype === 'fp8') refuseWhatHasNoFp8Layout(checkpoint);
  if (packedFile === undefined) refuseWhatMemoryCannotHold(checkpoint);
  const file = packedFile === undefined ? null : await openPackedFile(packedFile, checkpoint, compute, onPacking);
  const weights = packedWeights(checkpoint, compute, file);
  return { folder, checkpoint, config, compute, cacheDtype, rope: ropeFrequencies(config), weights };
}

function refuseWhatHasNoFp8Layout({ folder, config }: Checkpoint): void {
  if (config.family !== 'deepseek') {
    throw new CheckpointError(
      `${folder}: an FP8 cache holds the latents of MLA; ${config.modelType} keeps keys and values: take a BF16 cache`,
    );
  }
  if (config.kvLoraRank % 4 !== 0) {
    throw new CheckpointError(
      `${folder}: an FP8 cache needs a kv_lora_rank that is a multiple of 4, this one is ${config.kvLoraRank}: take a BF16 cache`,
    );
  }
}

function refuseWhatMemoryCannotHold(checkpoint: Checkpoint): void {
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(1)} GiB`;
  const needed = checkpoint.names.reduce((sum, name) => sum + checkpoint.header(name).byteLength, 0);
  const memory = os.totalmem();
  if (needed <= memory) return;
  throw new CheckpointError(
    `${checkpoint.folder}: the weights take ${gib(needed)}, this machine has ${gib(memory)} of memory. ` +
      'Give a packed file (--packed FILE): then weights stay on disk and are read when needed',
  );
}
