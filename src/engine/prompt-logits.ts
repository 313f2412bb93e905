/** The logits after every token of one prompt: for evaluation and for comparison with other implementations. */
import type { Model } from '../model/load.ts';
import { createRunner } from '../model/runner.ts';

const BLOCK_TOKENS = 64;

/** @returns f32 [tokens, vocab] */
export async function promptLogits(model: Model, tokens: readonly number[]): Promise<Float32Array> {
  const blocks = Math.ceil(tokens.length / BLOCK_TOKENS);
  const runner = await createRunner(model, {
    tokens: BLOCK_TOKENS,
    logits: BLOCK_TOKENS,
    sequences: 1,
    blocks,
    blockTokens: BLOCK_TOKENS,
    blocksPerSequence: blocks,
  });
  const { vocabSize } = model.config;
  const all = new Float32Array(tokens.length * vocabSize);
  for (let start = 0; start < tokens.length; start += BLOCK_TOKENS) {
    const ids = tokens.slice(start, start + BLOCK_TOKENS);
    const logits = await runner.step([{ ids, start, blocks: [...Array(blocks).keys()], logits: ids.length }]);
    all.set(logits, start * vocabSize);
  }
  return all;
}
