/**
 * Kills a training run with SIGKILL at random moments and holds its weights to those of one that was left alone:
 * `npx tsx bench/kill-training.ts [KILLS] [STEPS] [PRECISION]` (20, 120, fp8). The tiny run of test/train/tiny-run.ts;
 * it writes a checkpoint at every step, so many deaths fall into the writing of one.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const [kills = 20, steps = 120] = process.argv.slice(2, 4).map(Number);
const precision = process.argv[4] ?? 'fp8';
const program = path.join(import.meta.dirname, '../test/train/tiny-run.ts');
const folder = mkdtempSync(path.join(os.tmpdir(), 'kill-training-'));
const [checkpoints, out] = [path.join(folder, 'checkpoints'), path.join(folder, 'print.txt')];

const start = (into: string) =>
  spawn('node', ['--import', 'tsx', program, String(steps), into, out, precision], { stdio: 'inherit' });
const ended = (child: ReturnType<typeof start>) =>
  new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
const names = () => {
  try {
    return readdirSync(checkpoints);
  } catch {
    return [];
  }
};
const lastStep = () =>
  Number(
    /\d+/.exec(
      names()
        .filter((name) => name.startsWith('step-'))
        .sort()
        .at(-1) ?? '0',
    )?.[0],
  );

if ((await ended(start('none'))) !== 0) throw new Error('the undisturbed run failed');
const expected = readFileSync(out, 'utf8');
rmSync(out);

let torn = 0;
for (let kill = 1; kill <= kills; kill++) {
  // each life is let come to a random step of its share of the run, and then lives a random moment longer
  const target = Math.min(steps - 1, Math.floor(((kill - Math.random()) * (steps - 1)) / kills));
  const child = start(checkpoints);
  const exit = ended(child);
  let alive = true;
  exit.then(() => {
    alive = false;
  });
  while (alive && lastStep() < target) await new Promise((resolve) => setTimeout(resolve, 2));
  await new Promise((resolve) => setTimeout(resolve, Math.random() * 200));
  child.kill('SIGKILL');
  await exit;
  const half = names().some((name) => name.endsWith('.part'));
  if (half) torn++;
  console.log(`death ${kill} at step ${lastStep()} of ${steps}${half ? ', in the middle of a checkpoint' : ''}`);
}
if ((await ended(start(checkpoints))) !== 0) throw new Error('the last life failed');
const same = readFileSync(out, 'utf8') === expected;
console.log(
  `${kills} deaths, ${torn} in the middle of a checkpoint; final weights ${same ? 'are equal to the bit' : 'DIFFER'}`,
);
rmSync(folder, { recursive: true });
process.exitCode = same ? 0 : 1;
