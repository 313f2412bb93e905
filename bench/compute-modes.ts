/**
 * What the fast compute mode costs in quality: bits per byte of the built-in model on held-out tales, in f32 and in fast.
 * `npx tsx bench/compute-modes.ts`
 */
import path from 'node:path';
import { collection, here, isHeldOut } from '../models/builtin-data.ts';
import { loadModel } from '../src/index.ts';

const CHARACTERS = 1500;
const TALES = 24;

const tales = (await Promise.all((['tinystories', 'storybooks', 'fairy-tales'] as const).map(collection)))
  .flat()
  .filter(isHeldOut)
  .slice(0, TALES)
  .map(({ text }) => text.slice(0, CHARACTERS));

async function bitsPerByte(compute: 'f32' | 'fast'): Promise<number> {
  const model = await loadModel(path.join(here, 'farthing-tiny'), { compute, sequences: 1 });
  const { vocabSize } = model.config;
  let [nats, bytes] = [0, 0];
  for (const text of tales) {
    const ids = model.encode({ prompt: text });
    const logits = await model.logits(ids);
    for (let i = 0; i + 1 < ids.length; i++) {
      const row = logits.subarray(i * vocabSize, (i + 1) * vocabSize);
      const most = row.reduce((a, b) => Math.max(a, b));
      nats += most + Math.log(row.reduce((sum, logit) => sum + Math.exp(logit - most), 0)) - row[ids[i + 1]!]!;
    }
    bytes += Buffer.byteLength(text);
  }
  await model.close();
  return nats / Math.LN2 / bytes;
}

const [f32, fast] = [await bitsPerByte('f32'), await bitsPerByte('fast')];
const change = ((fast / f32 - 1) * 100).toFixed(4);
console.log(`${tales.length} tales: f32 ${f32.toFixed(5)}, fast ${fast.toFixed(5)} bits per byte, change ${change} %`);
