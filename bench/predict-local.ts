/**
 * The model of the local engine against the engine: decode and prefill, predicted from what kernels take by themselves in
 * other shapes and a small model's steps, then measured, a shape of model at a time: `npx tsx bench/predict-local.ts`
 * (medium and small, some two minutes each), `--shape small` for one of them, `--quick` for shorter contexts.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { instructionSet, threads } from '../src/backend/native.ts';
import { parseArchitecture } from '../src/economics/architecture.ts';
import { fitEngineRates, localDecode, localPrefill } from '../src/economics/local-engine.ts';
import { benchRunner, fillCaches, promptIds, read, write } from '../src/engine/measure.ts';
import { probeEngine } from '../src/engine/probe.ts';
import { openModel } from '../src/model/load.ts';
import { oneOf, randomModel, type Shape } from './random-models.ts';
import { earlierRows, origin, writeResult } from './result-file.ts';

const { values: options } = parseArgs({ options: { quick: { type: 'boolean' }, shape: { type: 'string' } } });
const SHAPES = { medium: true, small: true } as const;
const shapes = options.shape === undefined ? (['medium', 'small'] as const) : [oneOf('shape', SHAPES, options.shape)];
const CONTEXTS = options.quick ? [128, 2048] : [128, 2048, 8192];
const BATCHES = [1, 4, 16];
const DECODE = 8;
const [FEWEST_ROUNDS, MEASURED_MS] = [3, 20_000];

interface Row {
  readonly shape: Shape;
  readonly what: string;
  readonly predicted: number;
  readonly measured: number;
}

const from = origin();
let rows = earlierRows<Row>('predict-local', from);
for (const shape of shapes) {
  const folder = await randomModel(shape, 'fp8');
  const mine = await predictAndMeasure(shape, folder);
  rows = [...rows.filter((row) => row.shape !== shape), ...mine];
  await writeResult('predict-local', from, { rows });
  const within = mine.filter(({ predicted, measured }) => Math.abs(predicted / measured - 1) <= 0.2).length;
  console.log(`${shape}: ${within} of ${mine.length} within 20 %; ${threads()} threads, ${instructionSet}`);
}

async function predictAndMeasure(shape: Shape, folder: string): Promise<Row[]> {
  const probe = await probeEngine('fp8', 'fast');
  const rates = fitEngineRates(parseArchitecture(probe.config, 'probe'), probe);
  const architecture = parseArchitecture(JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8')), shape);
  const model = await openModel(folder, { compute: 'fast' });
  const longest = Math.max(...CONTEXTS);
  const most = { prompt: longest, decode: DECODE, depth: longest, batch: Math.max(...BATCHES), repeat: FEWEST_ROUNDS };
  const runner = await benchRunner(model, most);
  const { vocabSize } = model.config;
  await fillCaches(runner, vocabSize, most);
  const ids = promptIds(model, most);
  const points = CONTEXTS.flatMap((context) => [
    {
      what: `prefill ${context}`,
      predicted: localPrefill(architecture, rates, context),
      tokens: context,
      run: () => read(runner, ids.subarray(0, context), 0),
    },
    ...BATCHES.map((batch) => ({
      what: `decode after ${context}, batch ${batch}`,
      predicted: localDecode(architecture, rates, batch, context + DECODE / 2),
      tokens: batch * DECODE,
      run: () => write(runner, vocabSize, { decode: DECODE, depth: context, batch }),
    })),
  ]);
  // All points once a round, so that what disturbs the machine for a while spoils a round and not a point.
  const speeds = points.map((): number[] => []);
  const begun = performance.now();
  while (speeds[0]!.length < FEWEST_ROUNDS || performance.now() - begun < MEASURED_MS) {
    for (const [i, { tokens, run }] of points.entries()) {
      const start = performance.now();
      await run();
      speeds[i]!.push((1000 * tokens) / (performance.now() - start));
    }
  }
  return points.map(({ what, predicted }, i) => {
    const sorted = speeds[i]!.sort((a, b) => a - b);
    const measured = sorted[sorted.length >> 1]!;
    const off = predicted / measured - 1;
    console.log(
      `${shape.padEnd(8)}${what.padEnd(30)}predicted ${predicted.toFixed(1).padStart(8)}  measured ` +
        `${measured.toFixed(1).padStart(8)} tokens/s  ${off < 0 ? '−' : '+'}${Math.abs(off * 100).toFixed(0)} %`,
    );
    return { shape, what, predicted, measured };
  });
}
