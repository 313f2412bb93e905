/**
 * What a weight format costs: bits a weight, error of a weight and of a product, and bits per byte of the built-in model
 * on held-out tales. `npx tsx bench/weight-formats.ts` writes bench/results/weight-formats.json.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { here } from '../models/builtin-data.ts';
import { loadModel } from '../src/index.ts';
import { openCheckpoint, toFloat32 } from '../src/model/checkpoint.ts';
import { convertCheckpoint } from '../src/model/convert.ts';
import { dequantiseBlocks, quantiseBlocks } from '../src/numerics/block-scales.ts';
import { dequantiseFours, quantiseFours } from '../src/numerics/nvfp4.ts';
import { bitsPerByte } from './held-out.ts';
import { origin, writeResult } from './result-file.ts';

const builtIn = path.join(here, 'farthing-tiny');
const checkpoint = await openCheckpoint(builtIn);
const matrices = checkpoint.names
  .filter((name) => /_proj\.weight$/.test(name) && !/kv_b_proj|eh_proj/.test(name))
  .map((name) => ({
    shape: checkpoint.header(name).shape as [number, number],
    values: toFloat32(checkpoint.tensor(name)),
  }));

/** MXFP4 (OCP Microscaling Formats 1.0): 32 values share a power of two, chosen as its §6.3 says. For comparison only. */
function throughMxfp4(values: Float32Array): Float32Array {
  const fours = [0, 0.5, 1, 1.5, 2, 3, 4, 6];
  const nearest = (x: number) => fours.reduce((best, four) => (Math.abs(four - x) < Math.abs(best - x) ? four : best));
  const out = new Float32Array(values.length);
  for (let from = 0; from < values.length; from += 32) {
    const block = values.subarray(from, from + 32);
    const most = block.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const scale = most === 0 ? 1 : 2 ** (Math.floor(Math.log2(most)) - 2);
    block.forEach((value, i) => {
      out[from + i] = Math.sign(value) * nearest(Math.abs(value) / scale) * scale;
    });
  }
  return out;
}

const formats = {
  fp8: {
    bits: 8 + 32 / 128 ** 2,
    through: (values: Float32Array, rows: number, cols: number) => {
      const { codes, scales } = quantiseBlocks(values, rows, cols);
      return dequantiseBlocks(codes, scales, rows, cols);
    },
  },
  nvfp4: { bits: 4.5, through: (values: Float32Array) => dequantiseFours(quantiseFours(values)) },
  mxfp4: { bits: 4.25, through: throughMxfp4 },
};

/** Root mean square of the error over that of the exact: of all weights, and of their products with one random vector. */
function errors(through: (values: Float32Array, rows: number, cols: number) => Float32Array) {
  let [weight, weights, product, products] = [0, 0, 0, 0];
  for (const { shape, values } of matrices) {
    const [rows, cols] = shape;
    const back = through(values, rows, cols);
    const x = Float64Array.from({ length: cols }, (_, i) => Math.sqrt(2) * Math.cos(i * i));
    for (let row = 0; row < rows; row++) {
      let [exact, found] = [0, 0];
      for (let k = 0; k < cols; k++) {
        const [w, v] = [values[row * cols + k]!, back[row * cols + k]!];
        weight += (w - v) ** 2;
        weights += w ** 2;
        exact += w * x[k]!;
        found += v * x[k]!;
      }
      product += (exact - found) ** 2;
      products += exact ** 2;
    }
  }
  return { weightError: Math.sqrt(weight / weights), productError: Math.sqrt(product / products) };
}

const scratch = mkdtempSync(path.join(os.tmpdir(), 'farthing-formats-'));
const quality = async (folder: string) => {
  const model = await loadModel(folder, { sequences: 1 });
  const bits = await bitsPerByte(model);
  await model.close();
  return bits;
};
const reference = await quality(builtIn);
console.log(`as stored  ${reference.toFixed(5)} bits per byte`);
const rows = [];
for (const [name, { bits, through }] of Object.entries(formats)) {
  const { weightError, productError } = errors(through);
  let bitsPerByteOfModel: number | null = null;
  if (name === 'fp8' || name === 'nvfp4') {
    await convertCheckpoint(builtIn, path.join(scratch, name), { to: name });
    bitsPerByteOfModel = await quality(path.join(scratch, name));
  }
  const change = bitsPerByteOfModel === null ? null : bitsPerByteOfModel / reference - 1;
  rows.push({ name, bits, weightError, productError, bitsPerByte: bitsPerByteOfModel, change });
  const percent = (share: number) => `${(100 * share).toFixed(2)} %`;
  console.log(
    `${name.padEnd(10)} ${bits.toFixed(2)} bits a weight, error ${percent(weightError)} of a weight, ${percent(productError)} of a product` +
      (change === null ? '' : `; ${bitsPerByteOfModel!.toFixed(5)} bits per byte, change ${percent(change)}`),
  );
}
rmSync(scratch, { recursive: true });
await writeResult('weight-formats', origin(), { reference, rows });
