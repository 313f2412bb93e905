import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from '../../src/index.ts';
import { serve } from './serve-process.ts';
import { soak } from './soak.ts';
import { makeQuestions } from './soak-questions.ts';
import { metric } from './spawn-serve.ts';

const REQUESTS = 150;
const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-soak-'));
afterAll(() => rm(folder, { recursive: true }));

test('of hundreds of requests of all manners at 64 connections none is lost, mixed up, hung or answered otherwise than alone', async () => {
  const model = await loadModel('models/farthing-tiny', { sequences: 1, drafts: 0 });
  const questions = await makeQuestions(model, 20, 1);
  await model.close();
  const narrow = ['--sequences', '16', '--waiting', '44', '--cache', '3MiB'];
  const served = await serve(...narrow, '--disk-cache', folder, '--disk-cache-size', '32MiB');
  const { url } = served;
  const { faults, answered, left, malformed } = await soak({
    url,
    questions,
    requests: REQUESTS,
    connections: 64,
    hungMs: 90_000,
    seed: 1,
  });
  expect(faults).toEqual([]);
  expect(answered + left + malformed).toBe(REQUESTS);
  for (const idle of ['num_requests_running', 'num_requests_waiting', 'kv_cache_usage_perc']) {
    await expect.poll(() => metric(url, `vllm:${idle}`)).toBe(0);
  }
  expect(served.said()).toBe('');
});
