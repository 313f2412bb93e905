import { expect, test } from 'vitest';
import { drawTokens } from '../../src/backend/ops.ts';
import { uniform } from '../../src/engine/random.ts';
import { sample } from '../../src/engine/sampler.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { noise, runOps } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const ROWS = 400;

async function agreement(vocab: number, temperature: number, topP: number, topK: number): Promise<number> {
  const logits = noise(ROWS * vocab, 3).map((x) => Math.fround(6 * x));
  const seed = 11;
  const settings = Array.from({ length: ROWS }, (_, r) => [temperature, topP, topK, uniform(seed, r)]).flat();
  const given = { logits: { cols: vocab, values: logits }, settings: { cols: 4, values: settings } };
  const { ids } = await runOps(given, (graph, t) => ({ ids: drawTokens(graph, t.logits, t.settings) }));
  const right = ids.filter((id, r) => {
    const row = Float32Array.from(logits.slice(r * vocab, (r + 1) * vocab));
    return id === sample(row, { temperature, topP, topK, seed }, r);
  });
  return right.length / ROWS;
}

test.each([5, 64, 1003])('at temperature 0 a draw is the most probable of %i tokens', async (vocab) => {
  expect(await agreement(vocab, 0, 1, 0)).toBe(1);
});

test.each([
  [1, 1, 0, 0.99],
  [0.6, 1, 0, 0.99],
  [0.6, 0.9, 0, 0.85],
  [1, 1, 20, 0.75],
])('at temperature %d, top p %d, top k %i a draw is mostly the sampler’s', async (temperature, topP, topK, least) => {
  expect(await agreement(64, temperature, topP, topK)).toBeGreaterThan(least);
});
