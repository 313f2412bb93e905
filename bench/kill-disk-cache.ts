/**
 * Kills a server with SIGKILL amid writes to its disk cache and holds what it answers afterwards to the answers without a
 * cache: `npx tsx bench/kill-disk-cache.ts [KILLS] [SEED]` (20, 1). See test/server/kill-disk-cache.ts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { loadModel } from '../src/index.ts';
import { liveAndDie } from '../test/server/kill-disk-cache.ts';
import { makeQuestions } from '../test/server/soak-questions.ts';

const [kills = 20, seed = 1] = process.argv.slice(2).map(Number);
const QUESTIONS = 60;

const alone = await loadModel('models/farthing-tiny', { sequences: 1, drafts: 0 });
const questions = await makeQuestions(alone, QUESTIONS, seed);
await alone.close();
const folder = mkdtempSync(path.join(os.tmpdir(), 'kill-disk-cache-'));
let died = 0;
const { deaths, reported, fetchedTokens, faults } = await liveAndDie({
  kills,
  folder,
  questions,
  seed,
  onDeath: ({ answered, blocks, amidWrite }) =>
    console.log(
      `death ${++died} of ${kills} after ${answered} right answers; ${blocks} blocks left` +
        `${amidWrite ? ', and one half-written' : ''}`,
    ),
});
rmSync(folder, { recursive: true });
for (const fault of faults.slice(0, 20)) console.log(fault);
console.log(
  `${kills} deaths, ${deaths.filter(({ amidWrite }) => amidWrite).length} in the middle of a block; ` +
    `${reported} torn blocks reported and not used, ${fetchedTokens} tokens read from disk by the last life; ` +
    `${faults.length === 0 ? 'no wrong token' : `${faults.length} FAULTS`}`,
);
process.exitCode = faults.length === 0 ? 0 : 1;
