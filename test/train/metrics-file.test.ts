import { appendFileSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { readMetrics, recordStep } from '../../src/train/metrics-file.ts';

const folder = mkdtempSync(path.join(os.tmpdir(), 'metrics-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const step = (number: number, loss: number) => ({
  step: number,
  loss,
  mtpLoss: null,
  learningRate: 1e-3,
  gradientNorm: 1,
  imbalance: null,
  tokens: 64,
  seconds: 0.5,
});

test('a run that goes on from an earlier step replaces what came after it, and a line that a kill tore', async () => {
  const file = path.join(folder, 'metrics.jsonl');
  for (let i = 1; i <= 5; i++) await recordStep(file, step(i, 10 - i), i === 1);
  appendFileSync(file, '{"step":6,"lo');
  await recordStep(file, step(4, 1), true);
  await recordStep(file, step(5, 2), false);
  expect((await readMetrics(file)).map((each) => [each.step, each.loss])).toEqual([
    [1, 9],
    [2, 8],
    [3, 7],
    [4, 1],
    [5, 2],
  ]);
  expect(readFileSync(file, 'utf8').split('\n').length).toBe(6);
});

test('where there is no file there are no steps', async () => {
  expect(await readMetrics(path.join(folder, 'none.jsonl'))).toEqual([]);
});
