/**
 * Throughput of decode against the number of sequences that decode together, and what bounds it:
 * `npx tsx bench/batch-curve.ts` (medium, FP8, context 128; about 3 minutes) or `--quick` (small, batches to 8); `--shape`,
 * `--weights`, `--depth`, `--batches 1,2,4`, `--threads`. Bytes and operations are those of a real step: weights of the
 * experts that the batch was routed to, cached rows, products; the bounds divide them by this machine's measured bandwidth
 * and peak. Writes bench/results/batch-curve-SHAPE-WEIGHTS-THREADS.json and a picture of it (.svg).
 */
import { parseArgs } from 'node:util';
import { setThreads } from '../src/backend/native.ts';
import { measurePeak, measureReadBandwidth } from '../src/engine/machine-bounds.ts';
import { measure } from '../src/engine/measure.ts';
import { byKernel, profileSteps } from '../src/engine/profile.ts';
import { openModel } from '../src/model/load.ts';
import { SHAPES } from '../src/model/random-checkpoint.ts';
import { type CurvePart, type CurveRow, writeBatchCurve } from './batch-curve-picture.ts';
import { oneOf, PEER_TYPES, randomModel } from './random-models.ts';
import { origin, writeResult } from './result-file.ts';

const quick = process.argv.includes('--quick');
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    shape: { type: 'string', default: quick ? 'small' : 'medium' },
    weights: { type: 'string', default: 'fp8' },
    depth: { type: 'string', default: '128' },
    batches: { type: 'string', default: quick ? '1,2,4,8' : '1,2,4,8,16,32,64' },
    decode: { type: 'string', default: '16' },
    repeat: { type: 'string', default: '3' },
    threads: { type: 'string', default: '2' },
  },
});
const shape = oneOf('shape', SHAPES, options.shape);
const weights = oneOf('weights', PEER_TYPES, options.weights);
const [depth, decode, repeat] = [Number(options.depth), Number(options.decode), Number(options.repeat)];
const threads = Number(options.threads);

/** Which part of a step a kernel belongs to; what is named nowhere is the rest. */
const PARTS: Readonly<Record<string, CurvePart>> = {
  expert_linear: 'experts',
  linear: 'other products',
  head_linear: 'other products',
  latent_attention: 'attention',
};

setThreads(threads);
const from = origin(threads);
const model = await openModel(await randomModel(shape, weights), { compute: 'fast' });
const [bandwidth, peak] = [await measureReadBandwidth(), await measurePeak('fast')];
console.log(
  `${(bandwidth / 2 ** 30).toFixed(1)} GiB/s read, ${(peak / 1e12).toFixed(2)} TFLOP/s; context ${depth}\n` +
    `batch   tokens/s (min–max)            bound: weights   memory  arithmetic   of bound  binds`,
);
const rows: CurveRow[] = [];
for (const batch of options.batches.split(',').map(Number)) {
  const workload = { prompt: 0, decode, depth, batch, repeat };
  const { tokensPerSecond } = (await measure(model, workload)).decode;
  const row = { batch, tokensPerSecond, ...(await bounded(workload, tokensPerSecond.median)) };
  rows.push(row);
  const { bounds, binds, shareOfBound } = row;
  const { median, min, max } = tokensPerSecond;
  console.log(
    `${String(batch).padStart(5)}   ${`${median.toFixed(1)} (${min.toFixed(1)}–${max.toFixed(1)})`.padEnd(34)}` +
      `${[bounds.weights, bounds.memory, bounds.arithmetic].map((each) => each.toFixed(0).padStart(9)).join('')}` +
      `${`${(100 * shareOfBound).toFixed(0)} %`.padStart(13)}  ${binds}`,
  );
  const file = `batch-curve-${shape}-${weights}-${threads}`;
  await writeResult(file, from, { shape, weights, depth, bandwidth, peak, rows });
  await writeBatchCurve(`bench/results/${file}.svg`, `${shape}, ${weights}, context ${depth}`, rows);
}

async function bounded(
  workload: Parameters<typeof profileSteps>[1],
  measured: number,
): Promise<Omit<CurveRow, 'batch' | 'tokensPerSecond'>> {
  const [profile] = await profileSteps(model, workload);
  const seconds: Record<CurvePart, number> = { experts: 0, 'other products': 0, attention: 0, rest: 0 };
  let [weightBytes, cacheBytes, flops] = [0, 0, 0];
  for (const kernel of byKernel(profile!)) {
    const part = PARTS[kernel.kernel] ?? 'rest';
    seconds[part] += kernel.seconds;
    flops += kernel.flops;
    // what passes between operations stays in the processor's caches
    if (part === 'attention') cacheBytes += kernel.bytes;
    else if (part !== 'rest') weightBytes += kernel.bytes;
  }
  const { batch } = workload;
  const bounds = {
    weights: (batch * bandwidth) / weightBytes,
    memory: (batch * bandwidth) / (weightBytes + cacheBytes),
    arithmetic: (batch * peak) / flops,
  };
  const binds =
    bounds.arithmetic < bounds.memory ? 'arithmetic' : cacheBytes > weightBytes ? 'cache bytes' : 'weight bytes';
  const shareOfBound = measured / Math.min(bounds.memory, bounds.arithmetic);
  return { bounds, binds, shareOfBound, step: { weightBytes, cacheBytes, flops, seconds } };
}
