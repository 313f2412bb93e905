/** How well a model predicts tales that the built-in model was not trained on. */
import { collection, isHeldOut } from '../models/builtin-data.ts';
import type { LanguageModel } from '../src/engine/language-model.ts';

const CHARACTERS = 1500;
export const TALES = 24;

const tales = (await Promise.all((['tinystories', 'storybooks', 'fairy-tales'] as const).map(collection)))
  .flat()
  .filter(isHeldOut)
  .slice(0, TALES)
  .map(({ text }) => text.slice(0, CHARACTERS));

/** Bits of information in a byte of text that the model does not foresee. */
export async function bitsPerByte(model: LanguageModel): Promise<number> {
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
  return nats / Math.LN2 / bytes;
}
