/**
 * What an FP8 latent cache costs in quality: bits per byte of the built-in model on held-out tales, with a cache of
 * each type. `npx tsx bench/cache-dtypes.ts`
 */
import path from 'node:path';
import { here } from '../models/builtin-data.ts';
import { loadModel } from '../src/index.ts';
import { bitsPerByte, TALES } from './held-out.ts';

async function measured(cacheDtype: 'bf16' | 'fp8') {
  const model = await loadModel(path.join(here, 'farthing-tiny'), { cacheDtype, sequences: 1 });
  const bits = await bitsPerByte(model);
  const { bytesPerToken } = model.engine.status().cache;
  await model.close();
  return { bits, bytesPerToken };
}

const [bf16, fp8] = [await measured('bf16'), await measured('fp8')];
const change = ((fp8.bits / bf16.bits - 1) * 100).toFixed(4);
console.log(
  `${TALES} tales: bf16 ${bf16.bits.toFixed(5)} bits per byte with ${bf16.bytesPerToken} bytes of cache a token, ` +
    `fp8 ${fp8.bits.toFixed(5)} with ${fp8.bytesPerToken}, change ${change} %`,
);
