import { mkdtempSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { serve } from '../server/serve-process.ts';
import type { Served } from '../server/spawn-serve.ts';
import { makeTinyModel } from '../server/tiny-model.ts';
import { farthing } from './farthing.ts';

let served: Served;
beforeAll(async () => {
  served = await serve('--model', await makeTinyModel(), '--api-key', 'k');
});

const bench = (...args: string[]) =>
  farthing([
    'bench',
    'serve',
    '--url',
    `${served.url}/v1`,
    '--api-key',
    'k',
    '--prompt',
    '60',
    '--decode',
    '6',
    ...args,
  ]);

test.each([
  ['clients that ask in turn', ['--clients', '4']],
  ['requests at random moments', ['--rate', '200']],
])('bench serve counts what %s see', async (_, pace) => {
  const { code, stdout } = await bench('--requests', '12', '--shared', '50', '--json', ...pace);
  expect(code).toBe(0);
  const report = JSON.parse(stdout);
  expect(report.requests).toEqual({ answered: 12, refused: 0, failed: 0 });
  expect(report.tokensPerSecond.output * report.seconds).toBeLessThanOrEqual(12 * 6 + 1e-6);
  expect(report.ttftMs.p50).toBeGreaterThan(0);
  expect(report.ttftMs.p99).toBeGreaterThanOrEqual(report.ttftMs.p50);
});

test('bench serve finds shared beginnings in the cache', async () => {
  const { stdout } = await bench('--requests', '8', '--clients', '1', '--shared', '50', '--json');
  expect(JSON.parse(stdout).cacheHits).toBeGreaterThan(0.3);
});

test('bench serve replays a trace and prints what an endless cache would find beside what was found', async () => {
  const lines = [0, 1, 2, 3, 4].map((turn) => {
    const blocks = Array.from({ length: turn + 1 }, (_, i) => i);
    return JSON.stringify({
      timestamp: 2000 * turn,
      input_length: 512 * (turn + 1),
      output_length: 40,
      hash_ids: blocks,
    });
  });
  const trace = path.join(mkdtempSync(path.join(os.tmpdir(), 'trace-')), 'turns.jsonl');
  writeFileSync(trace, lines.join('\n'));
  const { stdout } = await bench('--trace', trace, '--speed', '10', '--length', '0.125', '--json');
  const report = JSON.parse(stdout);
  expect(report.requests).toEqual({ answered: 5, refused: 0, failed: 0 });
  expect(report.promptTokens).toBe(64 * (1 + 2 + 3 + 4 + 5));
  expect(report.idealCacheHits).toBeCloseTo(10 / 15, 9);
  expect(report.cachedTokens).toBe(64 * (1 + 2 + 3 + 4));
});

test('bench serve says when no server answers', async () => {
  const { code, stderr } = await farthing(['bench', 'serve', '--url', 'http://127.0.0.1:1/v1']);
  expect({ code, stderr }).toEqual({ code: 1, stderr: 'farthing: http://127.0.0.1:1/v1/models: no server answers\n' });
});
