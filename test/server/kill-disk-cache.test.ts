import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from '../../src/index.ts';
import { liveAndDie } from './kill-disk-cache.ts';
import { makeQuestions } from './soak-questions.ts';

const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-kill-'));
afterAll(() => rm(folder, { recursive: true }));

test('a server that was killed amid writes to its disk cache, and torn files, change no token; torn ones are reported', async () => {
  const model = await loadModel('models/farthing-tiny', { sequences: 1, drafts: 0 });
  const questions = await makeQuestions(model, 14, 2);
  await model.close();
  const { deaths, faults, reported, fetchedTokens } = await liveAndDie({ kills: 2, folder, questions, seed: 3 });
  expect(faults).toEqual([]);
  expect(deaths.at(-1)!.blocks).toBeGreaterThan(0);
  expect(reported).toBeGreaterThan(0);
  expect(fetchedTokens).toBeGreaterThan(0);
});
