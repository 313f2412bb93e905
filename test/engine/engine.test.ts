import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import { Engine, type Request, type SampledToken } from '../../src/engine/engine.ts';
import { RequestTooLargeError } from '../../src/engine/scheduler.ts';
import { type Model, openModel } from '../../src/model/load.ts';
import { createRunner } from '../../src/model/runner.ts';

let model: Model;
let fp8Cached: Model;
beforeAll(async () => {
  model = await openModel('test/fixtures/golden/v3-tiny', { compute: 'fast' });
  fp8Cached = await openModel('test/fixtures/golden/v3-tiny', { compute: 'fast', cacheDtype: 'fp8' });
});

const VOCAB = 384;
const CONTEXT = 128;

interface Shape {
  readonly stepTokens: number;
  readonly sequences: number;
  readonly blocks: number;
  readonly blockTokens: number;
}
const ROOMY: Shape = { stepTokens: 64, sequences: 16, blocks: 128, blockTokens: 16 };

async function engineOf({ stepTokens, sequences, blocks, blockTokens }: Shape, of = model): Promise<Engine> {
  const blocksPerSequence = Math.min(blocks, Math.ceil(CONTEXT / blockTokens));
  const runner = await createRunner(of, {
    tokens: stepTokens,
    logits: sequences,
    sequences,
    blocks,
    blockTokens,
    blocksPerSequence,
  });
  return new Engine(runner, { waiting: 100, contextTokens: CONTEXT });
}

function request(index: number, promptTokens: number, maxTokens: number, temperature: number): Request {
  return {
    // Two families of prompts that share their beginnings.
    prompt: Array.from({ length: promptTokens }, (_, i) => ((index % 2) * 101 + i * 17) % VOCAB),
    maxTokens,
    sampling: { temperature, topP: 0.95, topK: 50, seed: index },
    stopTokens: new Set<number>(),
    topLogprobs: 2,
  };
}

async function collect(engine: Engine, wanted: Request): Promise<SampledToken[]> {
  const tokens: SampledToken[] = [];
  for await (const token of engine.submit(wanted)) tokens.push(token);
  return tokens;
}

test.each(['bf16', 'fp8'])(
  'the tokens and log-probabilities of a request are the same to the bit in any batch, chunking, block size and under preemption, with a cache of %s',
  async (dtype) => {
    const of = dtype === 'fp8' ? fp8Cached : model;
    const alone = await engineOf(ROOMY, of);
    const shapes = fc.record({
      stepTokens: fc.integer({ min: 4, max: 40 }),
      sequences: fc.integer({ min: 1, max: 4 }),
      blocks: fc.integer({ min: 6, max: 30 }),
      blockTokens: fc.constantFrom(16, 32),
    });
    const mixes = fc.array(
      fc.record({
        prompt: fc.integer({ min: 1, max: 60 }),
        answer: fc.integer({ min: 1, max: 12 }),
        hot: fc.boolean(),
      }),
      { minLength: 1, maxLength: 8 },
    );
    await fc.assert(
      fc.asyncProperty(shapes, mixes, async (shape, mix) => {
        const requests = mix.map(({ prompt, answer, hot }, i) => request(i, prompt, answer, hot ? 1 : 0));
        const expected: SampledToken[][] = [];
        for (const one of requests) expected.push(await collect(alone, one));
        const engine = await engineOf(shape, of);
        const together = await Promise.all(requests.map((one) => collect(engine, one)));
        expect(together).toEqual(expected);
        const { running, waiting, blocks } = engine.status();
        expect({ running, waiting, used: blocks.total - blocks.free }).toEqual({ running: 0, waiting: 0, used: 0 });
      }),
      { numRuns: 10 },
    );
  },
);

test('preemption happens, and the interrupted request still gets its own tokens', async () => {
  const alone = await engineOf(ROOMY);
  const tight = await engineOf({ stepTokens: 32, sequences: 4, blocks: 7, blockTokens: 16 });
  const requests = [0, 1, 2, 3].map((i) => request(i, 14, 60, 1));
  const expected: SampledToken[][] = [];
  for (const one of requests) expected.push(await collect(alone, one));
  expect(await Promise.all(requests.map((one) => collect(tight, one)))).toEqual(expected);
  expect(tight.status().counts.preemptions).toBeGreaterThan(0);
});

test('a prompt found in the prefix cache gives the same answer, and the count of what was found', async () => {
  const engine = await engineOf(ROOMY);
  const wanted = request(0, 50, 8, 1);
  const first = await collect(engine, wanted);
  const again = engine.submit(wanted);
  const second: SampledToken[] = [];
  for await (const token of again) second.push(token);
  expect(second).toEqual(first);
  expect(again.usage).toMatchObject({ promptTokens: 50, cachedTokens: 48, completionTokens: 8 });
});

test('leaving the iteration cancels the request and frees its blocks', async () => {
  const engine = await engineOf(ROOMY);
  const generation = engine.submit(request(0, 40, 60, 0));
  for await (const _ of generation) break;
  const { running, blocks, counts } = engine.status();
  expect({ running, used: blocks.total - blocks.free, cancelled: counts.finished.cancelled }).toEqual({
    running: 0,
    used: 0,
    cancelled: 1,
  });
});

test('a stop token ends the answer and is its last token', async () => {
  const engine = await engineOf(ROOMY);
  const wanted = request(1, 10, 30, 0);
  const free = (await collect(engine, wanted)).map(({ token }) => token);
  const stop = free[5]!;
  const until = free.slice(0, free.indexOf(stop) + 1);
  const stopped = await collect(engine, { ...wanted, stopTokens: new Set([stop]) });
  expect(stopped.map(({ token }) => token)).toEqual(until);
  expect(stopped.at(-1)?.finish).toBe('stop');
});

test('a request that can never fit is refused, and closing ends what is under way', async () => {
  const engine = await engineOf(ROOMY);
  expect(() => engine.submit(request(0, 100, 29, 0))).toThrow(RequestTooLargeError);
  const endless = collect(engine, request(0, 10, 100, 0));
  await engine.close();
  expect((await endless).length).toBeLessThan(100);
  expect(() => engine.submit(request(0, 1, 1, 0))).toThrow('closed');
});
