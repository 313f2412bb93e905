import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { idealHits, readTrace, scaleTrace, type Trace, tracePrompt } from '../../src/server/traces.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'traces-'));
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, content: string | Uint8Array): string {
  writeFileSync(path.join(folder, name), content);
  return path.join(folder, name);
}

const shipped = 'bench/data/mooncake-conversation.jsonl.gz';

test('a Mooncake trace is read whole, compressed or not', async () => {
  const trace = await readTrace(shipped);
  expect(trace.requests).toHaveLength(2000);
  expect(trace.requests[1]).toMatchObject({ seconds: 0, promptTokens: 7322, outputTokens: 490 });
  expect(await readTrace(file('plain.jsonl', gunzipSync(readFileSync(shipped))))).toEqual(trace);
});

test('an Azure trace begins at its first request', async () => {
  const csv =
    'TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n';
  const { requests } = await readTrace(file('azure.csv.gz', gzipSync(csv)));
  expect(requests.map(({ promptTokens, outputTokens }) => [promptTokens, outputTokens])).toEqual([
    [374, 44],
    [396, 109],
  ]);
  expect(requests[1]!.seconds).toBeCloseTo(4.314, 2);
});

test.each([
  ['a line that is not JSON', 'x.jsonl', 'nonsense', /x\.jsonl, line 1: expected \{"timestamp"/],
  ['too few block ids', 'y.jsonl', '{"timestamp":0,"input_length":600,"output_length":1,"hash_ids":[1]}', /line 1/],
  [
    'a row without a length',
    'z.csv',
    'TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46,,4',
    /line 2: expected/,
  ],
])('%s is refused by file and line', async (_, name, content, message) => {
  await expect(readTrace(file(name, content))).rejects.toThrow(message);
});

/** Conversations that continue each other, with ids as a trace has them: of all tokens up to the block's last one. */
const traces = fc
  .record({
    blockTokens: fc.integer({ min: 16, max: 40 }),
    prompts: fc.array(fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 1, maxLength: 5 }), { maxLength: 12 }),
    last: fc.integer({ min: 1, max: 16 }),
  })
  .map(({ blockTokens, prompts, last }): Trace => {
    const ids = new Map<string, number>();
    const idOf = (beginning: string) => ids.get(beginning) ?? ids.set(beginning, ids.size).get(beginning)!;
    return {
      blockTokens,
      requests: prompts.map((turns, i) => ({
        seconds: i,
        promptTokens: (turns.length - 1) * blockTokens + last,
        outputTokens: 1,
        blocks: turns.map((_, at) => idOf(`${turns.slice(0, at + 1)} ${at === turns.length - 1 ? 'in part' : ''}`)),
      })),
    };
  });

test('prompts share exactly the tokens of their common blocks, and the ideal counts those that came before', () => {
  fc.assert(
    fc.property(traces, (trace) => {
      const prompts = trace.requests.map((_, i) => tracePrompt(trace, i));
      let [found, all] = [0, 0];
      for (const [i, prompt] of prompts.entries()) {
        const shared = prompts.slice(0, i).map((earlier) => {
          const differs = prompt.findIndex((token, at) => earlier[at] !== token);
          return differs === -1 ? prompt.length : differs;
        });
        // a block that differs may still begin with the same token by chance
        const whole = shared.map((count) => (count === prompt.length ? count : count - (count % trace.blockTokens)));
        found += Math.max(0, ...whole);
        all += prompt.length;
      }
      expect(idealHits(trace)).toBeCloseTo(all === 0 ? 0 : found / all, 9);
    }),
    { numRuns: 60 },
  );
});

test('a scaled trace keeps who shares what, and its ideal', async () => {
  const trace = await readTrace(shipped);
  const eighth = scaleTrace(trace, { requests: 500, speed: 10, length: 1 / 8 });
  expect(eighth.blockTokens).toBe(64);
  expect(eighth.requests[499]!.seconds).toBeCloseTo(trace.requests[499]!.seconds / 10, 9);
  expect(eighth.requests[0]).toMatchObject({ promptTokens: 845, outputTokens: 63 });
  const whole = scaleTrace(trace, { requests: 500, speed: 1, length: 1 });
  expect(idealHits(eighth)).toBeCloseTo(idealHits(whole), 2);
});
