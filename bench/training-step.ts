/**
 * Where a training step's time goes: `npx tsx bench/training-step.ts [CONFIG.json]` (the built-in model's shape). Forward and
 * backward of one batch of random documents of `--sequence 512` tokens, `--rows 4096` in all, `--precision bf16`, `--threads`,
 * `--steps 5`. A kernel's time is the sum of its ops' least, with the share of this machine's measured arithmetic peak that
 * products reach. Prints a table and writes bench/results/training-step-NAME-PRECISION-THREADS.json. With
 * bench/dim-1024.config.json `--sequence 1024 --rows 8192`: products at a width where they should reach it.
 */
import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import type { Op, Tensor } from '../src/backend/graph.ts';
import { instructionSet, setThreads } from '../src/backend/native.ts';
import { measurePeak } from '../src/engine/machine-bounds.ts';
import { parseConfig } from '../src/model/config.ts';
import { createParameters, type Precision } from '../src/train/parameters.ts';
import { createOptimizer, lossProgram } from '../src/train/training-step.ts';
import { randomBatch } from './random-batch.ts';
import { origin, writeResult } from './result-file.ts';

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: 'string', default: String(os.availableParallelism()) },
    steps: { type: 'string', default: '5' },
    precision: { type: 'string', default: 'bf16' },
    rows: { type: 'string', default: '4096' },
    sequence: { type: 'string', default: '512' },
  },
});
const [file = 'models/farthing-tiny.config.json'] = positionals;
const [threads, steps] = [Number(options.threads), Number(options.steps)];
const [ROWS, sequence] = [Number(options.rows), Number(options.sequence)];
const precision = options.precision as Precision;
setThreads(threads);

const config = parseConfig(JSON.parse(readFileSync(file, 'utf8')), file);
const parameters = createParameters(config, 1, precision);
const batch = randomBatch(config, { sequence, rows: ROWS });
const program = lossProgram(config, parameters, { rows: ROWS, mtpWeight: 0.3, gradients: true });
const optimizer = createOptimizer(parameters, { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 });

const timed = async (run: () => Promise<unknown>) => {
  const begin = performance.now();
  await run();
  return (performance.now() - begin) / 1000;
};
const median = (values: number[]) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)]!;

await parameters.repack();
await program.run(batch);
let least: { op: Op; seconds: number }[] = [];
const whole = { forwardBackward: [] as number[], update: [] as number[], repack: [] as number[] };
for (let step = 1; step <= steps; step++) {
  whole.forwardBackward.push(await timed(() => program.run(batch)));
  whole.update.push(await timed(() => optimizer.update(step, 0, 1)));
  whole.repack.push(await timed(() => parameters.repack()));
  const ops = await program.profile(batch);
  least = ops.map((op, i) => (op.seconds < (least[i]?.seconds ?? Number.POSITIVE_INFINITY) ? op : least[i]!));
}
const peak = await measurePeak(precision === 'fp32' ? 'f32' : 'fast');
const kernels = new Map<string, { seconds: number; flops: number }>();
for (const { op, seconds } of least) {
  const name = nameOf(op);
  const { seconds: before, flops } = kernels.get(name) ?? { seconds: 0, flops: 0 };
  kernels.set(name, { seconds: before + seconds, flops: flops + flopsOf(op) });
}

const step = median(whole.forwardBackward) + median(whole.update) + median(whole.repack);
const table = [...kernels].map(([kernel, { seconds, flops }]) => ({
  kernel,
  seconds,
  shareOfPeak: flops > 0 ? flops / seconds / peak : null,
}));
table.sort((a, b) => b.seconds - a.seconds);
const profiled = table.reduce((sum, { seconds }) => sum + seconds, 0);
console.log(`${file}, ${precision}, ${threads} threads, ${instructionSet}: ${Math.round(ROWS / step)} tokens/s`);
for (const [name, seconds] of Object.entries(whole)) {
  const [fastest, slowest] = [Math.min(...seconds), Math.max(...seconds)];
  console.log(`${name.padEnd(28)}${ms(median(seconds))} ms  (${ms(fastest)} to ${ms(slowest)})`);
}
console.log(`${'ops, each at its fastest'.padEnd(28)}${ms(profiled)} ms; peak ${(peak / 1e9).toFixed(0)} GFLOP/s`);
for (const { kernel, seconds, shareOfPeak } of table) {
  const share = shareOfPeak === null ? '' : `  ${(100 * shareOfPeak).toFixed(0).padStart(3)} % of the peak`;
  console.log(
    `${kernel.padEnd(28)}${ms(seconds)} ms  ${((100 * seconds) / profiled).toFixed(1).padStart(5)} %${share}`,
  );
}
const name = path.basename(file).replace(/(\.config)?\.json$/, '');
await writeResult(`training-step-${name}-${precision}-${threads}`, origin(threads), {
  ...{ file, precision, tokens: ROWS, sequence, peak, tokensPerSecond: ROWS / step, whole, kernels: table },
});

/** Products by what they multiply: experts apart, the head and the FP32 router apart from projections. */
function nameOf({ kernel, reads, writes, scalars }: Op): string {
  if (kernel !== 'linear' && kernel !== 'outer') return kernel;
  if (scalars[0] === 0) return `${kernel}, FP32`;
  const sides = [reads[0]!.cols, writes[0]!.cols, writes[0]!.storage.rows.times];
  return sides.includes(config.vocabSize) ? `${kernel}, head` : kernel;
}

/** Multiplications and additions of a product; 0 for other ops. */
function flopsOf({ kernel, reads, writes, scalars }: Op): number {
  const rows = ({ storage }: Tensor) => storage.rows.times * (storage.rows.axis === null ? 1 : ROWS);
  const out = writes[0]!;
  const [first, second] = reads;
  switch (kernel) {
    case 'linear':
    case 'expert_linear':
    case 'fp8_linear':
    case 'fp8_expert_linear':
      return 2 * rows(out) * out.cols * first!.cols;
    case 'outer':
    case 'expert_outer':
      return 2 * rows(first!) * first!.cols * second!.cols;
    case 'fp8_outer':
      return 2 * scalars[0]! * out.cols * out.storage.rows.times;
    default:
      return 0;
  }
}

function ms(seconds: number): string {
  return (seconds * 1000).toFixed(1).padStart(8);
}
