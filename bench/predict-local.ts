/**
 * The model of the local engine against the engine: decode and prefill of two shapes, predicted from a probe of another
 * shape on this machine, then measured. `npx tsx bench/predict-local.ts [--quick]`
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { instructionSet, threads } from '../src/backend/native.ts';
import { parseArchitecture } from '../src/economics/architecture.ts';
import { fitEngineRates, localDecode, localPrefill } from '../src/economics/local-engine.ts';
import { STEP_TOKENS } from '../src/engine/cache-size.ts';
import { measure } from '../src/engine/measure.ts';
import { probeEngine } from '../src/engine/probe.ts';
import { openModel } from '../src/model/load.ts';
import { SHAPES, writeRandomCheckpoint } from '../src/model/random-checkpoint.ts';
import { origin, writeResult } from './result-file.ts';

const quick = process.argv.includes('--quick');
const CONTEXTS = quick ? [128, 2048] : [128, 2048, 8192];
const BATCHES = [1, 4, 16];
const DECODE = quick ? 4 : 16;
const REPEAT = 3;

const probes = await probeEngine('fp8', 'fast');
const rates = fitEngineRates(
  probes.map(({ config, steps }) => ({ architecture: parseArchitecture(config, 'probe'), steps })),
  STEP_TOKENS,
);

interface Row {
  readonly shape: string;
  readonly what: string;
  readonly predicted: number;
  readonly measured: number;
}
const rows: Row[] = [];
for (const shape of ['medium', 'small'] as const) {
  const folder = await mkdtemp(path.join(os.tmpdir(), 'farthing-predict-'));
  await writeRandomCheckpoint(folder, SHAPES[shape], { dtype: 'fp8', seed: 1 });
  const config: unknown = JSON.parse(await readFile(path.join(folder, 'config.json'), 'utf8'));
  const architecture = parseArchitecture(config, shape);
  const model = await openModel(folder, { compute: 'fast' });
  for (const context of CONTEXTS) {
    const { prefill } = await measure(model, { prompt: context, decode: 0, depth: 0, batch: 1, repeat: REPEAT });
    const predicted = localPrefill(architecture, rates, context);
    report({ shape, what: `prefill ${context}`, predicted, measured: prefill.tokensPerSecond.median });
    for (const batch of BATCHES) {
      const { decode } = await measure(model, { prompt: 0, decode: DECODE, depth: context, batch, repeat: REPEAT });
      report({
        shape,
        what: `decode after ${context}, batch ${batch}`,
        predicted: localDecode(architecture, rates, batch, context + DECODE / 2),
        measured: decode.tokensPerSecond.median,
      });
    }
  }
  await rm(folder, { recursive: true, force: true });
}

function report(row: Row): void {
  rows.push(row);
  const off = row.predicted / row.measured - 1;
  console.log(
    `${row.shape.padEnd(8)}${row.what.padEnd(30)}predicted ${row.predicted.toFixed(1).padStart(8)}  measured ` +
      `${row.measured.toFixed(1).padStart(8)} tokens/s  ${off < 0 ? '−' : '+'}${Math.abs(off * 100).toFixed(0)} %`,
  );
}

const within = rows.filter(({ predicted, measured }) => Math.abs(predicted / measured - 1) <= 0.2).length;
console.log(`${within} of ${rows.length} within 20 %; ${threads()} threads, ${instructionSet}`);
await writeResult('predict-local', origin(), { rates, rows });
