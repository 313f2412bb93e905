/**
 * FP8 against BF16 training: `npx tsx bench/fp8-training.ts [RUN.toml] [STEPS] [SEEDS] [TOKENS] [FOLDER]`
 * (bench/fp8-training.toml, 5000, 3, 512 tokens a step, runs/fp8). Trains what the file describes in both precisions with
 * each seed, going on where it was stopped; prints the relative difference of the smoothed losses and writes
 * bench/results/fp8-training-STEPSxTOKENS.json and .svg.
 */
import path from 'node:path';
import { runConfig } from '../src/train/configured-run.ts';
import { writeLossCurve } from '../src/train/loss-curve.ts';
import { readMetrics } from '../src/train/metrics-file.ts';
import { readTrainConfig } from '../src/train/train-config.ts';
import { origin, writeResult } from './result-file.ts';

const [file = 'bench/fp8-training.toml', steps = '5000', seeds = '3', tokens = '512', folder = 'runs/fp8'] =
  process.argv.slice(2);
const [last, rows] = [Number(steps), Number(tokens)];
const config = await readTrainConfig(file);
const name = `fp8-training-${last}x${rows}`;
const SMOOTHING = Math.max(10, Math.round(last / 50));

/** Loss by step, over one seed. */
async function losses(precision: 'bf16' | 'fp8', seed: number): Promise<number[]> {
  const run = { ...config.run, folder: path.join(folder, `${precision}-${last}x${rows}-${seed}`) };
  const schedule = { ...config.schedule, steps: last, warmup_steps: Math.min(config.schedule.warmup_steps, last) };
  const variant = {
    ...config,
    run,
    schedule,
    data: {
      ...config.data,
      ...{ seed, sequence: Math.min(config.data.sequence, rows), batch_tokens: rows, accumulate: 1 },
    },
    optimizer: { ...config.optimizer, precision },
  };
  for await (const { step, loss } of runConfig(variant, { resume: true, onPlan() {} })) {
    if (step % 50 === 0) console.log(`${precision}, seed ${seed}: step ${step} of ${last}, loss ${loss.toFixed(4)}`);
  }
  return (await readMetrics(path.join(run.folder, 'metrics.jsonl'))).map(({ loss }) => loss);
}

const smoothed = (values: readonly number[]) =>
  values.map((_, i) => {
    const window = values.slice(Math.max(0, i + 1 - SMOOTHING), i + 1);
    return window.reduce((a, b) => a + b, 0) / window.length;
  });
const meanOf = (runs: readonly (readonly number[])[]) =>
  runs[0]!.map((_, i) => runs.reduce((sum, run) => sum + run[i]!, 0) / runs.length);

const results = [];
for (let seed = 1; seed <= Number(seeds); seed++) {
  const [bf16, fp8] = [smoothed(await losses('bf16', seed)), smoothed(await losses('fp8', seed))];
  const differences = fp8.map((loss, i) => loss / bf16[i]! - 1).slice(SMOOTHING);
  const greatest = differences.reduce((most, d) => (Math.abs(d) > Math.abs(most) ? d : most), 0);
  results.push({ seed, bf16, fp8, final: differences.at(-1)!, greatest });
}
const [bf16, fp8] = [meanOf(results.map((each) => each.bf16)), meanOf(results.map((each) => each.fp8))];
const percent = (share: number) => `${share >= 0 ? '+' : ''}${(100 * share).toFixed(3)} %`;
for (const { seed, final, greatest } of results) {
  console.log(`seed ${seed}: FP8 over BF16 at the end ${percent(final)}, furthest apart ${percent(greatest)}`);
}
const final = fp8.at(-1)! / bf16.at(-1)! - 1;
console.log(`mean of ${results.length} seeds at step ${last} (mean of ${SMOOTHING} steps): ${percent(final)}`);
const curve = (values: readonly number[]) => values.map((loss, i) => ({ step: i + 1, loss }));
await writeResult(name, origin(), {
  file,
  steps: last,
  tokensPerStep: rows,
  smoothing: SMOOTHING,
  final,
  seeds: results.map(({ seed, final: end, greatest }) => ({ seed, final: end, greatest })),
});
await writeLossCurve(`bench/results/${name}.svg`, { BF16: curve(bf16), FP8: curve(fp8) });
