import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { Engine, type Request, type SampledToken } from '../../src/engine/engine.ts';
import { Speculation } from '../../src/engine/speculation.ts';
import { type Model, openModel } from '../../src/model/load.ts';
import { createRunner } from '../../src/model/runner.ts';

// A trained model, since drafts of random weights are hardly ever right.
let model: Model;
beforeAll(async () => {
  model = await openModel('models/farthing-tiny', { compute: 'fast' });
});

interface Shape {
  readonly drafts: number;
  readonly stepTokens: number;
  readonly sequences: number;
  readonly blocks: number;
}

async function engineOf({ drafts, stepTokens, sequences, blocks }: Shape): Promise<Engine> {
  const blockTokens = 16;
  const limits = { tokens: stepTokens, logits: sequences * (1 + drafts), sequences, blocks, blockTokens, drafts };
  const runner = await createRunner(model, { ...limits, blocksPerSequence: Math.min(blocks, 16) });
  return new Engine(runner, { waiting: 100, contextTokens: 256 });
}

const STORY = [0, 2, 51, 320, 77, 261, 300, 19, 405, 88, 2000, 31];
const request = (index: number, promptTokens: number, maxTokens: number, temperature: number): Request => ({
  prompt: Array.from({ length: promptTokens }, (_, i) => STORY[(i + (index % 2)) % STORY.length]!),
  maxTokens,
  sampling: { temperature, topP: index % 3 === 0 ? 1 : 0.9, topK: index % 4 === 0 ? 40 : 0, seed: index },
  stopTokens: new Set([1]),
  topLogprobs: 3,
});

async function collect(engine: Engine, wanted: Request): Promise<SampledToken[]> {
  const tokens: SampledToken[] = [];
  for await (const token of engine.submit(wanted)) tokens.push(token);
  return tokens;
}

const used = (engine: Engine) => {
  const { running, waiting, blocks } = engine.status();
  return { running, waiting, used: blocks.total - blocks.free };
};

test('with drafts of any depth the tokens and log-probabilities are the same to the bit, in any batch and memory', async () => {
  const plain = await engineOf({ drafts: 0, stepTokens: 64, sequences: 1, blocks: 32 });
  const shapes = fc.record({
    drafts: fc.integer({ min: 1, max: 3 }),
    stepTokens: fc.integer({ min: 4, max: 40 }),
    sequences: fc.integer({ min: 1, max: 4 }),
    blocks: fc.integer({ min: 8, max: 24 }),
  });
  const mixes = fc.array(
    fc.record({
      prompt: fc.integer({ min: 1, max: 60 }),
      answer: fc.integer({ min: 1, max: 50 }),
      temperature: fc.constantFrom(0, 0.6, 1),
    }),
    { minLength: 1, maxLength: 6 },
  );
  let accepted = 0;
  await fc.assert(
    fc.asyncProperty(shapes, mixes, async (shape, mix) => {
      const requests = mix.map(({ prompt, answer, temperature }, i) => request(i, prompt, answer, temperature));
      const expected: SampledToken[][] = [];
      for (const one of requests) expected.push(await collect(plain, one));
      const engine = await engineOf(shape);
      expect(await Promise.all(requests.map((one) => collect(engine, one)))).toEqual(expected);
      expect(used(engine)).toEqual({ running: 0, waiting: 0, used: 0 });
      accepted += engine.status().counts.drafts.accepted;
    }),
    { numRuns: 12 },
  );
  expect(accepted).toBeGreaterThan(100);
});

test('drafts never spoil prefix hits: a second turn finds as much as without them, and gets the same answer', async () => {
  const turns = async (drafts: number) => {
    const engine = await engineOf({ drafts, stepTokens: 64, sequences: 2, blocks: 16 });
    const first = request(3, 20, 60, 0.6);
    const answer = await collect(engine, first);
    const prompt = [...Array.from(first.prompt), ...answer.map(({ token }) => token), 5, 6, 7];
    const second = engine.submit({ ...request(4, 1, 30, 0.6), prompt });
    const tokens: SampledToken[] = [];
    for await (const token of second) tokens.push(token);
    return { answer, tokens, cached: second.usage.cachedTokens, blocks: engine.status().blocks };
  };
  const plain = await turns(0);
  expect(plain.cached).toBe(64);
  for (const drafts of [1, 2, 3]) expect(await turns(drafts)).toEqual(plain);
});

test('what was drafted and what of it was right is counted, for each request and in all', async () => {
  const engine = await engineOf({ drafts: 2, stepTokens: 64, sequences: 2, blocks: 32 });
  const generations = [0, 1].map((i) => engine.submit(request(i, 12, 60, 0)));
  for (const generation of generations) for await (const _ of generation);
  const { drafted, accepted, acceptedByPlace } = engine.status().counts.drafts;
  const sum = (of: 'draftedTokens' | 'acceptedTokens') => generations.reduce((all, { usage }) => all + usage[of], 0);
  expect({ drafted, accepted }).toEqual({ drafted: sum('draftedTokens'), accepted: sum('acceptedTokens') });
  expect(acceptedByPlace.reduce((all, each) => all + each, 0)).toBe(accepted);
  // Far better than guessing one of 4096.
  expect(accepted / drafted).toBeGreaterThan(0.3);
});

test('a model without MTP module drafts nothing', async () => {
  const plain = await openModel('test/fixtures/golden/qwen3-tiny', { compute: 'fast' });
  const limits = { tokens: 8, logits: 8, sequences: 2, blocks: 8, blockTokens: 16, blocksPerSequence: 4, drafts: 3 };
  const runner = await createRunner(plain, limits);
  expect(runner.drafter).toBe(null);
  const engine = new Engine(runner, { waiting: 1, contextTokens: 64 });
  await collect(engine, { ...request(0, 4, 8, 0), prompt: [1, 2, 3] });
  expect(engine.status().counts.drafts.drafted).toBe(0);
});

describe('the depth that pays', () => {
  /** Milliseconds of a step by depth; drafts right with the same chance at each place. @returns depth after a while */
  function settle(ms: (depth: number) => number, chance: number): number {
    const speculation = new Speculation(3);
    const counts = [0, 0, 0, 0];
    for (let step = 0; step < 4000; step++) {
      const depth = speculation.depth(8);
      if (step >= 2000) counts[depth]!++;
      let accepted = 0;
      while (accepted < depth && ((step * 7919 + accepted * 104729) % 1000) / 1000 < chance) accepted++;
      speculation.checked(depth, accepted);
      speculation.took(8, depth, ms(depth));
    }
    return counts.indexOf(Math.max(...counts));
  }

  test('is none where another row costs as much as another step', () => {
    expect(settle((depth) => 1 + depth, 0.8)).toBe(0);
  });
  test('is the deepest where rows are free and drafts mostly right', () => {
    expect(settle((depth) => 1 + 0.05 * depth, 0.9)).toBe(3);
  });
  test('is one where the second is rarely worth its cost', () => {
    // (1 + 0.6) / 1.3 > (1 + 0.6 + 0.36) / 1.7 > 1.
    expect(settle((depth) => [1, 1.3, 1.7, 2.1][depth]!, 0.6)).toBe(1);
  });
});
