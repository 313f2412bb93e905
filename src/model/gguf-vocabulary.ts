/** The tokenizer part of a GGUF file, from a byte-level BPE tokenizer.json; placeholders where a folder has none. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import type { GgufValue } from '../numerics/gguf-writer.ts';

export type GgufVocabulary = Record<string, GgufValue>;

const tokenizerJson = z.object({
  added_tokens: z.array(z.object({ id: z.int(), content: z.string(), special: z.boolean() })),
  model: z.object({
    type: z.literal('BPE'),
    vocab: z.record(z.string(), z.int()),
    merges: z.array(z.union([z.string(), z.tuple([z.string(), z.string()])])),
  }),
});
const tokenizerConfig = z.object({ chat_template: z.string().optional() });

/** Token types of the format. */
const NORMAL = 1;
const CONTROL = 3;
const USER_DEFINED = 4;
const UNUSED = 5;

/**
 * @param vocabSize rows of the embedding; ids without a token become placeholders
 * @throws Error when tokenizer.json is no byte-level BPE
 */
export async function ggufVocabulary(folder: string, vocabSize: number): Promise<GgufVocabulary> {
  const source = await readFile(path.join(folder, 'tokenizer.json'), 'utf8').catch(() => null);
  const tokens = Array.from({ length: vocabSize }, (_, id) => `<unused${id}>`);
  const types = new Array<number>(vocabSize).fill(UNUSED);
  let merges: string[] = [];
  let special: { id: number; content: string }[] = [];
  if (source !== null) {
    const parsed = tokenizerJson.safeParse(JSON.parse(source));
    if (!parsed.success) throw new Error(`${folder}/tokenizer.json: expected a byte-level BPE tokenizer to export`);
    const { model, added_tokens: added } = parsed.data;
    for (const [token, id] of Object.entries(model.vocab)) {
      tokens[id] = token;
      types[id] = NORMAL;
    }
    for (const { id, content, special: isSpecial } of added) {
      tokens[id] = content;
      types[id] = isSpecial ? CONTROL : USER_DEFINED;
    }
    special = added;
    merges = model.merges.map((merge) => (typeof merge === 'string' ? merge : merge.join(' ')));
  }
  const template = await readFile(path.join(folder, 'tokenizer_config.json'), 'utf8')
    .then((json) => tokenizerConfig.parse(JSON.parse(json)).chat_template)
    .catch(() => undefined);
  const idOf = (name: RegExp, otherwise: number): GgufValue => ({
    type: 'u32',
    value: special.find(({ content }) => name.test(content))?.id ?? otherwise,
  });
  return {
    'tokenizer.ggml.model': { type: 'string', value: 'gpt2' },
    // single digits, then GPT-2's words: what our own tokenizers split by
    'tokenizer.ggml.pre': { type: 'string', value: 'starcoder' },
    'tokenizer.ggml.tokens': { type: 'strings', value: tokens },
    'tokenizer.ggml.token_type': { type: 'i32s', value: types },
    'tokenizer.ggml.merges': { type: 'strings', value: merges },
    'tokenizer.ggml.bos_token_id': idOf(/bos/, 0),
    'tokenizer.ggml.eos_token_id': idOf(/eos/, 1),
    'tokenizer.ggml.add_bos_token': { type: 'bool', value: true },
    ...(template === undefined ? {} : { 'tokenizer.chat_template': { type: 'string' as const, value: template } }),
  };
}
