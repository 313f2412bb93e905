/**
 * What the fast compute mode costs in quality: bits per byte of the built-in model on held-out tales, in f32 and in fast.
 * `npx tsx bench/compute-modes.ts`
 */
import path from 'node:path';
import { here } from '../models/builtin-data.ts';
import { loadModel } from '../src/index.ts';
import { bitsPerByte, TALES } from './held-out.ts';

async function measured(compute: 'f32' | 'fast'): Promise<number> {
  const model = await loadModel(path.join(here, 'farthing-tiny'), { compute, sequences: 1 });
  const bits = await bitsPerByte(model);
  await model.close();
  return bits;
}

const [f32, fast] = [await measured('f32'), await measured('fast')];
const change = ((fast / f32 - 1) * 100).toFixed(4);
console.log(`${TALES} tales: f32 ${f32.toFixed(5)}, fast ${fast.toFixed(5)} bits per byte, change ${change} %`);
