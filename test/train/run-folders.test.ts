import { appendFile, mkdir, mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { followRuns, type RunNews } from '../../src/train/run-folders.ts';

let folder: string;
let stop: AbortController;
beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'runs-'));
  stop = new AbortController();
});
afterEach(async () => {
  stop.abort();
  await rm(folder, { recursive: true });
});

const step = (n: number, loss = 5) => ({
  step: n,
  loss,
  mtpLoss: null,
  learningRate: 1e-3,
  gradientNorm: 1,
  imbalance: 1.5,
  expertLoads: { 1: [150, 50] },
  tokens: 64,
  seconds: 0.1,
});
const lines = (records: object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join('');
const steps = (from: number, to: number) => Array.from({ length: to - from + 1 }, (_, i) => step(from + i));
const fileOf = (run: string, name = 'metrics.jsonl') => path.join(folder, run, name);
async function makeRun(run: string, records: object[]) {
  await mkdir(path.join(folder, run));
  await writeFile(fileOf(run), lines(records));
}

/** Steps of the next news of metrics. */
async function nextSteps(news: AsyncGenerator<RunNews>): Promise<number[]> {
  for (;;) {
    const { value } = await news.next();
    if ('metrics' in value) return value.metrics.map((each: { step: number }) => each.step);
  }
}
const follow = (...runs: [string, number][]) => followRuns(folder, new Map(runs), stop.signal);

test('runs are told apart: how far each is, and whether it has reached its last step', async () => {
  await makeRun('a', steps(1, 3));
  await makeRun('b', steps(1, 9));
  await mkdir(path.join(folder, 'no-run'));
  const plan = { steps: 9, parameters: 1, trainingTokens: 1, tokensPerStep: 1, validationBatches: 0 };
  await writeFile(fileOf('b', 'run.json'), JSON.stringify(plan));
  expect((await follow().next()).value).toEqual({
    runs: [
      { name: 'a', state: 'running', plan: null, lastStep: 3 },
      { name: 'b', state: 'finished', plan, lastStep: 9 },
    ],
  });
});

test('a folder that is not there has no runs, until it comes', async () => {
  const news = followRuns(path.join(folder, 'later'), new Map(), stop.signal);
  expect((await news.next()).value).toEqual({ runs: [] });
  await mkdir(path.join(folder, 'later'));
  await makeRun('later/a', steps(1, 1));
  expect((await news.next()).value).toMatchObject({ runs: [{ name: 'a' }] });
});

test('what is known is not told again; what is added comes, a half-written line once it is whole', async () => {
  await makeRun('a', steps(1, 5));
  const news = follow(['a', 3]);
  expect(await nextSteps(news)).toEqual([4, 5]);
  const added = lines([step(6), step(7)]);
  await appendFile(fileOf('a'), added.slice(0, -20));
  expect(await nextSteps(news)).toEqual([6]);
  await appendFile(fileOf('a'), added.slice(-20));
  expect(await nextSteps(news)).toEqual([7]);
});

test('a run that went back to a checkpoint is told anew', async () => {
  await makeRun('a', steps(1, 5));
  const news = follow(['a', 0]);
  expect(await nextSteps(news)).toEqual([1, 2, 3, 4, 5]);
  await writeFile(fileOf('a', 'aside'), lines([...steps(1, 2), step(3, 4)]));
  await rename(fileOf('a', 'aside'), fileOf('a'));
  expect(await nextSteps(news)).toEqual([1, 2, 3]);
  expect(await nextSteps(follow(['a', 5]))).toEqual([1, 2, 3]);
});

test('of a log that only grows, steps before a return to a checkpoint are left out', async () => {
  await makeRun('a', [...steps(1, 5), step(4, 3), step(5, 3), ...steps(6, 7), ...steps(3, 4)]);
  const news = follow(['a', 0]);
  expect(await nextSteps(news)).toEqual([1, 2, 3, 4]);
  await appendFile(fileOf('a'), lines([...steps(5, 6), ...steps(5, 5)]));
  expect(await nextSteps(news)).toEqual([5]);
});

test('of a long run every step comes, and expert loads of some', async () => {
  await makeRun('a', steps(1, 2000));
  const all = [];
  for await (const news of follow(['a', 0])) {
    if ('metrics' in news) all.push(...news.metrics);
    if (all.length >= 2000) break;
  }
  expect(all.map((each) => each.step)).toEqual(steps(1, 2000).map((each) => each.step));
  expect(all.filter(({ expertLoads }) => expertLoads).length).toBeLessThanOrEqual(300);
});

test('sample texts come with their steps, and lines that are no records are passed over', async () => {
  await makeRun('a', [{ nonsense: true }, step(1)]);
  await writeFile(fileOf('a', 'samples.jsonl'), `no JSON\n${lines([{ step: 1, prompt: 'The', text: ' fox' }])}`);
  const news = follow(['a', 0]);
  expect(await nextSteps(news)).toEqual([1]);
  expect((await news.next()).value).toEqual({ run: 'a', samples: [{ step: 1, prompt: 'The', text: ' fox' }] });
});
