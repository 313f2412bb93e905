/**
 * From the start of the process to the first byte it writes: `npx tsx bench/startup.ts [ROUNDS]`, about half a minute.
 * `farthing run` with the built-in model writes the first piece of its answer; the peer, node-llama-cpp, says that it is
 * imported and initialised, without a model; Node alone is the floor of both. In turn, so that a busy moment is shared.
 * Needs `npm run build` and `npm ci --prefix bench`.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { origin, writeResult } from './result-file.ts';

const rounds = Number(process.argv[2] ?? 20);
const commands = {
  farthing: [
    'dist/cli/main.js',
    'run',
    '--temperature',
    '0',
    '--max-tokens',
    '8',
    'Tell me a story about a brave mouse',
  ],
  peer: ['bench/llama-start.mjs'],
  node: ['-e', 'process.stdout.write("ready")'],
};

async function firstByte(args: readonly string[]): Promise<number> {
  const start = performance.now();
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(child, 'close');
  const first = await Promise.race([once(child.stdout, 'data'), ended.then(() => null)]);
  const milliseconds = performance.now() - start;
  child.stdout.resume();
  const [code] = await ended;
  if (first === null || code !== 0) throw new Error(`node ${args.join(' ')} ended with ${code}, expected an answer`);
  return milliseconds;
}

const measured: Record<string, number[]> = {};
for (let round = 0; round < rounds; round++) {
  for (const [name, args] of Object.entries(commands)) {
    measured[name] ??= [];
    measured[name].push(await firstByte(args));
  }
}
const milliseconds = Object.fromEntries(
  Object.entries(measured).map(([name, times]) => {
    const sorted = times.sort((a, b) => a - b).map((time) => Math.round(time));
    return [name, { least: sorted[0]!, median: sorted[sorted.length >> 1]! }];
  }),
);
for (const [name, { least, median }] of Object.entries(milliseconds)) {
  console.log(`${name.padEnd(10)}${least} ms at least, ${median} ms in the median of ${rounds}`);
}
await writeResult('startup', origin(), { rounds, milliseconds });
