/** How large the paged cache and a step are: what the caller says, else what the model needs and the machine has. */
import os from 'node:os';
import type { Compute } from '../backend/graph.ts';
import type { ModelConfig } from '../model/config.ts';
import { cacheWidths } from '../model/forward.ts';
import type { RunnerLimits } from '../model/runner.ts';

export interface CacheOptions {
  /** Most sequences that run at once. */
  readonly sequences?: number;
  /** Memory for the cache; default: `sequences` whole contexts, at most a quarter of the machine's memory. */
  readonly cacheBytes?: number;
  /** Most tokens computed in one step; more make prompts faster and the steps of others longer. */
  readonly stepTokens?: number;
}

/** Tokens that share a block: as in FlashMLA. Only whole blocks are found again by the prefix cache. */
const BLOCK_TOKENS = 64;

export function runnerLimits(
  config: ModelConfig,
  compute: Compute,
  { sequences = 32, cacheBytes = os.totalmem() / 4, stepTokens = 256 }: CacheOptions,
): RunnerLimits {
  const blocksPerContext = Math.ceil(config.maxPositionEmbeddings / BLOCK_TOKENS);
  const blockBytes = BLOCK_TOKENS * cacheBytesPerToken(config, compute);
  const blocks = Math.min(sequences * blocksPerContext, Math.floor(cacheBytes / blockBytes));
  if (blocks < 1) {
    throw new RangeError(`a cache of ${cacheBytes} bytes: one block of ${BLOCK_TOKENS} tokens takes ${blockBytes}`);
  }
  return {
    tokens: Math.max(stepTokens, sequences),
    logits: sequences,
    sequences,
    blocks,
    blockTokens: BLOCK_TOKENS,
    blocksPerSequence: Math.min(blocksPerContext, blocks),
  };
}

/** Bytes that one token occupies in the cache over all layers. */
export function cacheBytesPerToken(config: ModelConfig, compute: Compute): number {
  const values = cacheWidths(config).reduce((sum, width) => sum + width, 0);
  return config.numHiddenLayers * values * (compute === 'f32' ? 4 : 2);
}
