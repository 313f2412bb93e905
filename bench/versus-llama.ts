/**
 * Decode and prefill beside llama.cpp on the same random weights:
 * `npx tsx bench/versus-llama.ts --shape medium --threads 2 --dtype fp8` (peer: Q8_0, or BF16 beside --dtype bf16).
 * Needs `npm run build` and the peer: `npm ci --prefix bench`. Row by row both run in turn. Prints a table and writes
 * bench/results/versus-llama-SHAPE-DTYPE-THREADS.json; some minutes for medium.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { exportGguf } from '../src/model/gguf-export.ts';
import { SHAPES, writeRandomCheckpoint } from '../src/model/random-checkpoint.ts';

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'small' },
    threads: { type: 'string', default: '2' },
    dtype: { type: 'string', default: 'fp8' },
    repeat: { type: 'string', default: '3' },
  },
});
const PEER_TYPES = { fp8: 'q8_0', bf16: 'bf16' } as const;
const shape = options.shape as keyof typeof SHAPES;
const dtype = options.dtype as keyof typeof PEER_TYPES;
const [threads, repeat] = [Number(options.threads), Number(options.repeat)];
if (!Object.hasOwn(SHAPES, shape)) throw new Error(`--shape ${shape}: expected ${Object.keys(SHAPES).join(', ')}`);
if (!Object.hasOwn(PEER_TYPES, dtype)) throw new Error(`--dtype ${dtype}: expected fp8 or bf16`);

const ROWS = [
  { name: 'decode, empty context', prompt: 0, decode: 64, depth: 0, batch: 1 },
  { name: 'decode at 2,048', prompt: 0, decode: 32, depth: 2048, batch: 1 },
  { name: 'decode at 8,192', prompt: 0, decode: 16, depth: 8192, batch: 1 },
  { name: 'prefill 512', prompt: 512, decode: 0, depth: 0, batch: 1 },
  { name: 'prefill 2,048', prompt: 2048, decode: 0, depth: 0, batch: 1 },
  { name: '32 sequences, context 128', prompt: 0, decode: 16, depth: 128, batch: 32 },
].filter(({ depth }) => shape !== 'small' || depth < 8192);

const cache = path.join(os.tmpdir(), 'farthing-bench');
const folder = path.join(cache, `${shape}-${dtype}`);
const gguf = path.join(cache, `${shape}-${PEER_TYPES[dtype]}.gguf`);
mkdirSync(cache, { recursive: true });
if (!existsSync(path.join(folder, 'config.json')))
  await writeRandomCheckpoint(folder, SHAPES[shape], { dtype, seed: 1 });
if (!existsSync(gguf)) await exportGguf(folder, gguf, PEER_TYPES[dtype]);

interface Rate {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}
interface PeerResult {
  readonly prefill: { readonly tokensPerSecond: Rate } | null;
  readonly decode: { readonly tokensPerSecond: Rate } | null;
}
interface OurResult {
  readonly prefill: { readonly tokensPerSecond: Rate };
  readonly decode: { readonly tokensPerSecond: Rate };
  readonly memory: { readonly shareOfBandwidth: number };
  readonly arithmetic: { readonly shareOfPeak: number };
  readonly machine: {
    readonly instructionSet: string;
    readonly readBytesPerSecond: number;
    readonly flopsPerSecond: number;
  };
}

function run<Result>(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Result {
  const env = { ...process.env, ...environment };
  return JSON.parse(
    execFileSync('node', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], env }),
  ) as Result;
}

const vocabulary = (SHAPES[shape] as { vocab_size: number }).vocab_size;
const perSecond = ({ median, min, max }: Rate) => `${median.toFixed(1)} (${min.toFixed(1)}–${max.toFixed(1)})`;
console.log(`${'tokens/s: median (min–max)'.padEnd(28)}${'ours'.padEnd(30)}${'peer'.padEnd(30)}ratio  of bound`);
let machine: OurResult['machine'] | undefined;
const rows = ROWS.map(({ name, ...workload }) => {
  const reads = workload.prompt > 0;
  const flags = { model: folder, ...workload, threads, repeat };
  const ourFlags = Object.entries(flags).flatMap(([key, value]) => [`--${key}`, String(value)]);
  const result = run<OurResult>(['dist/cli/main.js', 'bench', '--json', ...ourFlags]);
  machine = result.machine;
  const peerResult = run<PeerResult>(['bench/llama-peer.mjs', gguf, JSON.stringify({ ...workload, threads, repeat })], {
    UV_THREADPOOL_SIZE: '1',
    PEER_VOCABULARY: String(vocabulary),
  });
  const ours = (reads ? result.prefill : result.decode).tokensPerSecond;
  const measuredPeer = reads ? peerResult.prefill : peerResult.decode;
  if (!measuredPeer) throw new Error(`the peer measured nothing for "${name}"`);
  const peer = measuredPeer.tokensPerSecond;
  const bound = reads
    ? { of: 'peak arithmetic', share: result.arithmetic.shareOfPeak }
    : { of: 'memory bandwidth', share: result.memory.shareOfBandwidth };
  const ratio = ours.median / peer.median;
  console.log(
    `${name.padEnd(28)}${perSecond(ours).padEnd(30)}${perSecond(peer).padEnd(30)}${ratio.toFixed(2).padStart(5)}  ` +
      `${(100 * bound.share).toFixed(0)} % of ${bound.of}`,
  );
  return { name, ours, peer, ratio, bound };
});

const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();
mkdirSync('bench/results', { recursive: true });
writeFileSync(
  `bench/results/versus-llama-${shape}-${dtype}-${threads}.json`,
  `${JSON.stringify({ shape, ours: dtype, peer: PEER_TYPES[dtype], machine, load: os.loadavg()[0], date: new Date().toISOString(), commit, rows }, null, 2)}\n`,
);
