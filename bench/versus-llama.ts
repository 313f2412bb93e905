/**
 * Decode and prefill beside llama.cpp on the same random weights: `npx tsx bench/versus-llama.ts medium 2`
 * (shape, threads). Needs the peer: `npm ci --prefix bench`. Both run in turn in one session; ours is FP8, the peer's
 * Q8_0. Writes bench/results/versus-llama-SHAPE-THREADS.json.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { exportGguf } from '../src/model/gguf-export.ts';
import { SHAPES, writeRandomCheckpoint } from '../src/model/random-checkpoint.ts';

const shape = (process.argv[2] ?? 'small') as keyof typeof SHAPES;
const threads = Number(process.argv[3] ?? 2);
const repeat = Number(process.argv[4] ?? 3);
if (!Object.hasOwn(SHAPES, shape)) throw new Error(`shape "${shape}": expected ${Object.keys(SHAPES).join(', ')}`);

const ROWS = [
  { name: 'decode, empty context', prompt: 0, decode: 64, depth: 0, batch: 1 },
  { name: 'decode at 2,048', prompt: 0, decode: 32, depth: 2048, batch: 1 },
  { name: 'decode at 8,192', prompt: 0, decode: 16, depth: 8192, batch: 1 },
  { name: 'prefill 512', prompt: 512, decode: 0, depth: 0, batch: 1 },
  { name: 'prefill 2,048', prompt: 2048, decode: 0, depth: 0, batch: 1 },
  { name: '32 sequences, context 128', prompt: 0, decode: 16, depth: 128, batch: 32 },
].filter(({ depth }) => shape !== 'small' || depth < 8192);

const cache = path.join(os.tmpdir(), 'farthing-bench');
const folder = path.join(cache, `${shape}-fp8`);
const gguf = path.join(cache, `${shape}-q8_0.gguf`);
mkdirSync(cache, { recursive: true });
if (!existsSync(path.join(folder, 'config.json')))
  await writeRandomCheckpoint(folder, SHAPES[shape], { dtype: 'fp8', seed: 1 });
if (!existsSync(gguf)) await exportGguf(folder, gguf, 'q8_0');

interface Result {
  prefill: { tokensPerSecond: Rate } | null;
  decode: { tokensPerSecond: Rate } | null;
}
interface Rate {
  median: number;
  min: number;
  max: number;
}
const run = (args: string[], environment: NodeJS.ProcessEnv = {}): Result =>
  JSON.parse(
    execFileSync('node', args, {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
      env: { ...process.env, ...environment },
    }),
  );

const vocabulary = (SHAPES[shape] as { vocab_size: number }).vocab_size;
const rows = ROWS.map(({ name, ...workload }) => {
  const { prompt, decode, depth, batch } = workload;
  const flags = { model: folder, prompt, decode, depth, batch, threads, repeat };
  const rateOf = ({ prefill, decode: written }: Result) => (prompt > 0 ? prefill! : written!).tokensPerSecond;
  const ours = rateOf(
    run([
      'dist/cli/main.js',
      'bench',
      '--json',
      ...Object.entries(flags).flatMap(([key, value]) => [`--${key}`, String(value)]),
    ]),
  );
  const peer = rateOf(
    run(['bench/llama-peer.mjs', gguf, JSON.stringify({ ...workload, threads, repeat })], {
      UV_THREADPOOL_SIZE: '1',
      PEER_VOCABULARY: String(vocabulary),
    }),
  );
  console.log(
    `${name.padEnd(28)} ours ${ours.median.toFixed(1)} (${ours.min.toFixed(1)}–${ours.max.toFixed(1)})  ` +
      `peer ${peer.median.toFixed(1)} (${peer.min.toFixed(1)}–${peer.max.toFixed(1)})  ratio ${(ours.median / peer.median).toFixed(2)}`,
  );
  return { name, ours, peer, ratio: ours.median / peer.median };
});

const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
const machine = { processor: os.cpus()[0]?.model, cores: os.availableParallelism(), threads };
mkdirSync('bench/results', { recursive: true });
writeFileSync(
  `bench/results/versus-llama-${shape}-${threads}.json`,
  `${JSON.stringify({ shape, machine, date: new Date().toISOString().slice(0, 10), commit, rows }, null, 2)}\n`,
);
