/** How large the paged cache and a step are: what the caller says, else what the model needs and the machine has. */
import os from 'node:os';
import type { CacheDType } from '../backend/graph.ts';
import type { ModelConfig } from '../model/config.ts';
import { cacheBytesPerToken, hasMtp } from '../model/forward.ts';
import type { RunnerLimits } from '../model/runner.ts';

export interface CacheOptions {
  /** Most sequences that run at once. */
  readonly sequences?: number;
  /** Memory for the cache; default: `sequences` whole contexts, at most a quarter of the machine's memory. */
  readonly cacheBytes?: number;
  /** Most tokens computed in one step (default 512); half as many of prompts where others wait for their next token. */
  readonly stepTokens?: number;
  /** Most tokens drafted for a sequence in one step, where the model has an MTP module; 0 drafts none. Default 3. */
  readonly drafts?: number;
}

/** Most tokens computed in one step, unless the caller says otherwise. */
export const STEP_TOKENS = 512;

/** Tokens that share a block: as in FlashMLA. Only whole blocks are found again by the prefix cache. */
const BLOCK_TOKENS = 64;

export function runnerLimits(
  config: ModelConfig,
  cacheDtype: CacheDType,
  { sequences = 32, cacheBytes = machineBytes() / 4, stepTokens = STEP_TOKENS, drafts: wanted = 3 }: CacheOptions,
): RunnerLimits {
  const blocksPerContext = Math.ceil(config.maxPositionEmbeddings / BLOCK_TOKENS);
  const drafts = hasMtp(config) ? wanted : 0;
  const blockBytes = BLOCK_TOKENS * cacheBytesPerToken(config, cacheDtype, drafts > 0 ? 1 : 0);
  const blocks = Math.min(sequences * blocksPerContext, Math.floor(cacheBytes / blockBytes));
  if (blocks < 1) {
    throw new RangeError(
      `a cache of ${cacheBytes} bytes is too small: one block of ${BLOCK_TOKENS} tokens takes ${blockBytes}`,
    );
  }
  return {
    tokens: Math.max(stepTokens, sequences),
    logits: sequences * (1 + drafts),
    sequences,
    drafts,
    blocks,
    blockTokens: BLOCK_TOKENS,
    blocksPerSequence: Math.min(blocksPerContext, blocks),
  };
}

/** Memory that this process may use: the machine's, or what its container is limited to. */
function machineBytes(): number {
  return Math.min(os.totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY);
}
