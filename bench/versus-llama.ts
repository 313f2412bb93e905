/**
 * Decode and prefill beside llama.cpp on the same random weights: `npx tsx bench/versus-llama.ts --shape medium`.
 * `--threads 2`; `--weights fp8` (beside Q8_0), `bf16` (BF16) or `nvfp4` (Q4_0); `--rows decode,prefill-512` measures some
 * rows only. Row by row both run in turn; each is added to bench/results/versus-llama-SHAPE-WEIGHTS-THREADS.json as soon as
 * it is measured, beside the other rows of the same machine and commit. Needs the peer:
 * `npm ci --prefix bench`. A row of medium takes some 20 s to 3 minutes, those at 8,192 and of 32 sequences longest.
 */
import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { SHAPES } from '../src/model/random-checkpoint.ts';
import { oneOf, PEER_TYPES, peerModel, randomModel, vocabularyOf } from './random-models.ts';
import { earlierRows, origin, writeResult } from './result-file.ts';

const ROWS = {
  decode: { name: 'decode, empty context', prompt: 0, decode: 64, depth: 0, batch: 1 },
  'decode-2048': { name: 'decode at 2,048', prompt: 0, decode: 32, depth: 2048, batch: 1 },
  'decode-8192': { name: 'decode at 8,192', prompt: 0, decode: 16, depth: 8192, batch: 1 },
  'prefill-512': { name: 'prefill 512', prompt: 512, decode: 0, depth: 0, batch: 1 },
  'prefill-2048': { name: 'prefill 2,048', prompt: 2048, decode: 0, depth: 0, batch: 1 },
  'together-32': { name: '32 sequences, context 128', prompt: 0, decode: 16, depth: 128, batch: 32 },
};
type RowKey = keyof typeof ROWS;

const { values: options } = parseArgs({
  options: {
    shape: { type: 'string', default: 'small' },
    threads: { type: 'string', default: '2' },
    weights: { type: 'string', default: 'fp8' },
    rows: { type: 'string', default: Object.keys(ROWS).join() },
    repeat: { type: 'string', default: '3' },
  },
});
const shape = oneOf('shape', SHAPES, options.shape);
const weights = oneOf('weights', PEER_TYPES, options.weights);
const chosen = options.rows.split(',').map((key) => oneOf('rows', ROWS, key));
const [threads, repeat] = [Number(options.threads), Number(options.repeat)];

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
  readonly machine: { readonly readBytesPerSecond: number; readonly flopsPerSecond: number };
}
interface Row {
  readonly key: RowKey;
  readonly name: string;
  readonly ours: Rate;
  readonly peer: Rate;
  readonly ratio: number;
  readonly bound: { readonly of: string; readonly perSecond: number; readonly share: number };
}

const folder = await randomModel(shape, weights);
const gguf = await peerModel(shape, weights);
const from = origin(threads);
const file = `versus-llama-${shape}-${weights}-${threads}`;

function run<Result>(args: readonly string[], environment: NodeJS.ProcessEnv = {}): Result {
  const env = { ...process.env, ...environment };
  return JSON.parse(execFileSync('node', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env })) as Result;
}

function measureRow(key: RowKey): Row {
  const { name, ...workload } = ROWS[key];
  const reads = workload.prompt > 0;
  const flags = { model: folder, ...workload, threads, repeat };
  const ourFlags = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, String(value)]);
  const result = run<OurResult>(['--import', 'tsx', 'src/cli/main.ts', 'bench', '--json', ...ourFlags]);
  const peerResult = run<PeerResult>(['bench/llama-peer.mjs', gguf, JSON.stringify({ ...workload, threads, repeat })], {
    UV_THREADPOOL_SIZE: '1',
    PEER_VOCABULARY: String(vocabularyOf(shape)),
  });
  const ours = (reads ? result.prefill : result.decode).tokensPerSecond;
  const measuredPeer = reads ? peerResult.prefill : peerResult.decode;
  if (!measuredPeer) throw new Error(`the peer measured nothing for "${name}"`);
  const peer = measuredPeer.tokensPerSecond;
  const bound = reads
    ? {
        of: 'peak arithmetic',
        perSecond: result.machine.flopsPerSecond,
        share: result.arithmetic.shareOfPeak,
      }
    : {
        of: 'memory bandwidth',
        perSecond: result.machine.readBytesPerSecond,
        share: result.memory.shareOfBandwidth,
      };
  return { key, name, ours, peer, ratio: ours.median / peer.median, bound };
}

const perSecond = ({ median, min, max }: Rate) => `${median.toFixed(1)} (${min.toFixed(1)}–${max.toFixed(1)})`;
console.log(
  `${'tokens/s: median (min–max)'.padEnd(28)}${`ours, ${weights}`.padEnd(30)}${`peer, ${PEER_TYPES[weights]}`.padEnd(30)}ratio`,
);
for (const key of chosen) {
  const row = measureRow(key);
  const { name, ours, peer, ratio, bound } = row;
  console.log(
    `${name.padEnd(28)}${perSecond(ours).padEnd(30)}${perSecond(peer).padEnd(30)}${ratio.toFixed(2).padStart(5)}  ` +
      `${(100 * bound.share).toFixed(0)} % of ${bound.of}`,
  );
  const measured = [...earlierRows<Row>(file, from).filter((earlier) => earlier.key !== key), row];
  const rows = Object.keys(ROWS).flatMap((wanted) => measured.find((each) => each.key === wanted) ?? []);
  await writeResult(file, from, { shape, ours: weights, peer: PEER_TYPES[weights], rows });
}
