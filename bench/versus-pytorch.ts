/**
 * Training beside PyTorch on the same processor: `PYTHON=/usr/bin/python3 npx tsx bench/versus-pytorch.ts [CONFIG.json]`
 * (`--threads 2`, `--tokens 4096` a step in sequences of 512, `--rounds 3` of `--steps 3`). The same model
 * (bench/torch-peer.py), weights and batch; whole steps: forward, backward, clipping, AdamW. First the losses and the size of
 * the gradient of both in FP32, which must agree; then rounds of all in turn, of which the fastest step counts, for
 * other work on the machine only slows steps down. Prints a table and writes bench/results/versus-pytorch-NAME-THREADS.json.
 * Needs PyTorch; Debian's, python3-torch, multiplies FP32 matrices well only beside libopenblas0-pthread. About two minutes.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { setThreads } from '../src/backend/native.ts';
import { parseConfig } from '../src/model/config.ts';
import { createParameters, type Precision } from '../src/train/parameters.ts';
import { createOptimizer, lossProgram } from '../src/train/training-step.ts';
import { randomBatch } from './random-batch.ts';
import { origin, writeResult } from './result-file.ts';

const SEQUENCE = 512;
const MTP_WEIGHT = 0.3;
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: '2' },
    tokens: { type: 'string', default: '4096' },
    rounds: { type: 'string', default: '3' },
    steps: { type: 'string', default: '3' },
  },
});
const [file = 'models/farthing-tiny.config.json'] = positionals;
const [threads, rows] = [Number(options.threads), Number(options.tokens)];
const [rounds, steps] = [Number(options.rounds), Number(options.steps)];
setThreads(threads);

const json: unknown = JSON.parse(readFileSync(file, 'utf8'));
const config = parseConfig(json, file);
// documents of a sequence each: the peer then needs no mask but the causal one
const batch = randomBatch(config, { sequence: SEQUENCE, rows });

interface Measured {
  /** Of the first step, before it: losses and the size of the gradient. */
  readonly loss: number;
  readonly mtp: number;
  readonly norm: number;
  readonly seconds: readonly number[];
  readonly version?: string;
}

async function ours(precision: Precision, count: number): Promise<Measured> {
  const parameters = createParameters(config, 1, precision);
  const program = lossProgram(config, parameters, { rows, mtpWeight: MTP_WEIGHT, gradients: true });
  const optimizer = createOptimizer(parameters, { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 });
  await parameters.repack();
  const seconds: number[] = [];
  let first = { loss: 0, mtp: 0, norm: 0 };
  for (let step = 1; step <= count; step++) {
    const begin = performance.now();
    await optimizer.zero();
    const { nats, targets, mtp } = await program.run(batch);
    const norm = await optimizer.norm();
    await optimizer.update(step, 1e-3, Math.min(1, 1 / (norm + 1e-6)));
    await parameters.repack();
    seconds.push((performance.now() - begin) / 1000);
    if (step === 1) first = { loss: nats / targets, mtp: mtp ?? 0, norm };
  }
  return { ...first, seconds };
}

const folder = mkdtempSync(path.join(os.tmpdir(), 'versus-pytorch-'));
const write = (name: string, content: string | Uint8Array) => writeFileSync(path.join(folder, name), content);
const { list, master } = createParameters(config, 1);
write('config.json', JSON.stringify(json));
write('weights.json', JSON.stringify(list));
write('weights.f32', new Uint8Array(master.buffer, master.byteOffset, master.byteLength));
const plain = ({ ids, targets }: { ids: Int32Array; targets: Int32Array }) => ({
  ids: [...ids],
  targets: [...targets],
});
const ahead = batch.ahead.map(plain);
write('batch.json', JSON.stringify({ ...plain(batch), ahead, sequence: SEQUENCE, mtpWeight: MTP_WEIGHT }));

function peer(precision: 'fp32' | 'bf16', count: number): Measured {
  const args = [path.join(import.meta.dirname, 'torch-peer.py'), folder, String(threads), String(count), precision];
  return JSON.parse(execFileSync(process.env.PYTHON ?? 'python3', args, { encoding: 'utf8' })) as Measured;
}

const [mine, theirs] = [await ours('fp32', 1), peer('fp32', 1)];
for (const what of ['loss', 'mtp', 'norm'] as const) {
  const difference = Math.abs(mine[what] / theirs[what] - 1);
  console.log(`first step, ${what}: ${mine[what].toFixed(6)} here, ${theirs[what].toFixed(6)} there`);
  if (!(difference < 1e-4)) throw new Error(`not the same model: ${what} differs by ${difference}`);
}

const sides = {
  'PyTorch, FP32': async () => peer('fp32', steps),
  'PyTorch, BF16 autocast': async () => peer('bf16', steps),
  'here, BF16': () => ours('bf16', steps),
  'here, FP8': () => ours('fp8', steps),
};
const fastest = new Map<string, number>();
for (let round = 0; round < rounds; round++) {
  for (const [name, measure] of Object.entries(sides)) {
    const { seconds } = await measure();
    fastest.set(name, Math.min(...seconds, fastest.get(name) ?? Number.POSITIVE_INFINITY));
  }
}
rmSync(folder, { recursive: true });
const best = Math.min(fastest.get('PyTorch, FP32')!, fastest.get('PyTorch, BF16 autocast')!);
const table = [...fastest].map(([name, seconds]) => ({
  name,
  secondsPerStep: seconds,
  tokensPerSecond: rows / seconds,
  ratio: best / seconds,
}));
console.log(`${file}, ${threads} threads, ${rows} tokens a step; PyTorch ${theirs.version}`);
for (const { name, tokensPerSecond, ratio } of table) {
  console.log(
    `${name.padEnd(26)}${Math.round(tokensPerSecond).toString().padStart(7)} tokens/s  ${ratio.toFixed(2)} of the faster PyTorch`,
  );
}
const name = `versus-pytorch-${path.basename(file).replace(/(\.config)?\.json$/, '')}-${threads}`;
await writeResult(name, origin(threads), { file, rows, sequence: SEQUENCE, pytorch: theirs.version, sides: table });
