/**
 * Where a training step's time goes: `npx tsx bench/training-step.ts [CONFIG.json] [THREADS] [STEPS] [PRECISION]`. Forward
 * and backward of one batch of 4096 random tokens in windows of 512, by kernel; the built-in model's shape in BF16 unless
 * given; a kernel's time is the sum of its ops' least. Prints a table and writes bench/results/training-step-NAME-PRECISION-THREADS.json.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { instructionSet, setThreads } from '../src/backend/native.ts';
import { parseConfig } from '../src/model/config.ts';
import { packDocuments } from '../src/train/packed-documents.ts';
import { createParameters, type Precision } from '../src/train/parameters.ts';
import { randomBits } from '../src/train/random.ts';
import { createOptimizer, lossProgram } from '../src/train/training-step.ts';

const ROWS = 4096;
const file = process.argv[2] ?? 'models/farthing-tiny.config.json';
const threads = Number(process.argv[3] ?? os.availableParallelism());
const steps = Number(process.argv[4] ?? 5);
const precision = (process.argv[5] ?? 'bf16') as Precision;
setThreads(threads);

const config = parseConfig(JSON.parse(readFileSync(file, 'utf8')), file);
const parameters = createParameters(config, 1, precision);
const modules = config.family === 'deepseek' ? config.numNextnPredictLayers : 0;
const documents = Array.from({ length: 2 * (ROWS / 256) }, (_, d) => ({
  ids: Array.from({ length: 256 }, (_, i) => randomBits(1, d, i) % config.vocabSize),
}));
const batch = packDocuments(documents, { sequence: 512, rows: ROWS, seed: 1, modules }).batch(0);
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
let least: { kernel: string; seconds: number }[] = [];
const whole = { forwardBackward: [] as number[], update: [] as number[], repack: [] as number[] };
for (let step = 1; step <= steps; step++) {
  whole.forwardBackward.push(await timed(() => program.run(batch)));
  whole.update.push(await timed(() => optimizer.update(step, 0, 1)));
  whole.repack.push(await timed(() => parameters.repack()));
  const ops = await program.profile(batch);
  least = ops.map((op, i) => (op.seconds < (least[i]?.seconds ?? Number.POSITIVE_INFINITY) ? op : least[i]!));
}
const kernels = new Map<string, number>();
for (const { kernel, seconds } of least) kernels.set(kernel, (kernels.get(kernel) ?? 0) + seconds);

const step = median(whole.forwardBackward) + median(whole.update) + median(whole.repack);
const rows = [...kernels].map(([kernel, seconds]) => ({ kernel, seconds }));
rows.sort((a, b) => b.seconds - a.seconds);
const profiled = rows.reduce((sum, { seconds }) => sum + seconds, 0);
console.log(`${file}, ${precision}, ${threads} threads, ${instructionSet}: ${Math.round(ROWS / step)} tokens/s`);
for (const [name, seconds] of Object.entries(whole)) {
  const [fastest, slowest] = [Math.min(...seconds), Math.max(...seconds)];
  console.log(`${name.padEnd(28)}${ms(median(seconds))} ms  (${ms(fastest)} to ${ms(slowest)})`);
}
console.log(`${'ops, each at its fastest'.padEnd(28)}${ms(profiled)} ms`);
for (const { kernel, seconds } of rows) {
  console.log(`${kernel.padEnd(28)}${ms(seconds)} ms  ${((100 * seconds) / profiled).toFixed(1).padStart(5)} %`);
}
const name = path.basename(file).replace(/(\.config)?\.json$/, '');
mkdirSync('bench/results', { recursive: true });
writeFileSync(
  `bench/results/training-step-${name}-${precision}-${threads}.json`,
  `${JSON.stringify({ file, precision, threads, instructionSet, processor: os.cpus()[0]?.model.trim(), date: new Date().toISOString(), tokensPerSecond: ROWS / step, whole, kernels: rows }, null, 2)}\n`,
);

function ms(seconds: number): string {
  return (seconds * 1000).toFixed(1).padStart(8);
}
