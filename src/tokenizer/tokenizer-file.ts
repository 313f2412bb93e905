/**
 * `tokenizer.json` and `tokenizer_config.json` of a checkpoint folder, read and checked once. What is checked is what
 * encoding and decoding rest on; the fields of a normaliser or pre-tokenizer are the library's business.
 */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { FormatError, shown } from '../numerics/format-error.ts';

export class TokenizerError extends FormatError {
  override name = 'TokenizerError';
}

const text = z.string('expected a string');
const tokenId = z.int('expected a token id').min(0, 'expected a token id');
const stage = z.looseObject({ type: text }, 'expected an object with a "type"').nullish();

const unused = z.literal('', 'expected none: tokenizers that mark the ends of words are not supported').nullish();

const tokenizerFields = z.looseObject({
  added_tokens: z
    .array(
      z.looseObject({ id: tokenId, content: text.min(1, 'expected a text that is not empty'), special: z.boolean() }),
    )
    .default([]),
  normalizer: stage,
  pre_tokenizer: stage,
  post_processor: stage,
  decoder: stage,
  model: z.looseObject(
    { type: text.nullish(), continuing_subword_prefix: unused, end_of_word_suffix: unused },
    'expected an object',
  ),
});

const specialToken = z.union([text, z.looseObject({ content: text })], 'expected a token').nullish();

const configFields = z.looseObject({
  bos_token: specialToken,
  eos_token: specialToken,
  add_bos_token: z.boolean('expected true or false').nullish(),
  add_eos_token: z.boolean('expected true or false').nullish(),
  chat_template: z
    .union(
      [text, z.array(z.object({ name: text, template: text }))],
      'expected a template or a list of named templates',
    )
    .nullish(),
});

export interface TokenizerFile extends z.infer<typeof tokenizerFields> {
  /** Id of every token but the added ones. */
  readonly vocabulary: ReadonlyMap<string, number>;
  /** [merges, 3] by rank: ids of the left token, the right one, and of what they make. */
  readonly mergeIds: Int32Array;
}

export type TokenizerConfig = z.infer<typeof configFields>;

/** The folder's tokenizer.json, or null when it has none. @throws TokenizerError naming file, field, expected, found */
export async function readTokenizerFile(folder: string): Promise<TokenizerFile | null> {
  const file = path.join(folder, 'tokenizer.json');
  const content = await readIfThere(file);
  if (content === null) return null;
  const fields = parse(tokenizerFields, file, parseJson(file, content));
  const { type, vocab, merges } = fields.model;
  if ((type ?? 'BPE') !== 'BPE')
    throw new TokenizerError(`${file}: "model.type": expected "BPE", found ${shown(type)}`);
  const vocabulary = readVocabulary(file, vocab, fields.added_tokens);
  return { ...fields, vocabulary, mergeIds: readMerges(file, vocabulary, merges) };
}

/** The folder's tokenizer_config.json; no fields where there is no file. @throws TokenizerError as above */
export async function readTokenizerConfig(folder: string): Promise<TokenizerConfig> {
  const file = path.join(folder, 'tokenizer_config.json');
  return parse(configFields, file, parseJson(file, (await readIfThere(file)) ?? '{}'));
}

/** The text of a special token, however it is written down. */
export function contentOf(token: z.infer<typeof specialToken>): string | null {
  return typeof token === 'string' ? token : (token?.content ?? null);
}

/** A file's text, or null where there is no such file. */
export async function readIfThere(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

function parseJson(file: string, content: string): unknown {
  try {
    return JSON.parse(content);
  } catch (cause) {
    throw new TokenizerError(`${file}: not JSON: ${(cause as Error).message}`, { cause });
  }
}

function parse<T>(schema: z.ZodType<T>, file: string, json: unknown): T {
  const parsed = schema.safeParse(json);
  if (parsed.success) return parsed.data;
  const { path: field, message } = parsed.error.issues[0]!;
  const found = field.reduce<unknown>((value, key) => (value as Record<PropertyKey, unknown> | undefined)?.[key], json);
  throw new TokenizerError(`${file}: "${field.join('.')}": ${message}, found ${shown(found)}`);
}

/**
 * By hand: a hundred thousand entries are too many for a schema. No two tokens share an id, and ids leave no gaps that
 * would make tables of them absurdly large.
 */
function readVocabulary(
  file: string,
  vocab: unknown,
  added: readonly { content: string; id: number }[],
): Map<string, number> {
  if (typeof vocab !== 'object' || vocab === null || Array.isArray(vocab)) {
    throw new TokenizerError(`${file}: "model.vocab": expected an object from token to id, found ${shown(vocab)}`);
  }
  const vocabulary = new Map(Object.entries(vocab));
  const most = 8 * (vocabulary.size + added.length) + 1024;
  const owner: string[] = [];
  const claim = (token: string, id: number) => {
    if (id > most) throw new TokenizerError(`${file}: id ${id} of ${shown(token)}, expected at most ${most}`);
    if (owner[id] !== undefined && owner[id] !== token) {
      throw new TokenizerError(`${file}: id ${id} belongs to both ${shown(owner[id])} and ${shown(token)}`);
    }
    owner[id] = token;
  };
  for (const [token, id] of vocabulary) {
    if (!Number.isInteger(id) || id < 0) {
      throw new TokenizerError(`${file}: "model.vocab": expected a token id for ${shown(token)}, found ${shown(id)}`);
    }
    claim(token, id);
  }
  for (const { content, id } of added) claim(content, id);
  return vocabulary;
}

/** Each merge is of two tokens of the vocabulary that make a third. */
function readMerges(file: string, vocabulary: ReadonlyMap<string, number>, merges: unknown): Int32Array {
  if (!Array.isArray(merges)) {
    throw new TokenizerError(`${file}: "model.merges": expected a list of merges, found ${shown(merges)}`);
  }
  const mergeIds = new Int32Array(3 * merges.length);
  for (const [rank, merge] of merges.entries()) {
    const [left, right] = typeof merge === 'string' ? merge.split(' ', 2) : Array.isArray(merge) ? merge : [];
    const ids = [left, right, left + right].map((token) => vocabulary.get(token));
    if (ids.includes(undefined)) {
      throw new TokenizerError(
        `${file}: "model.merges.${rank}": expected two tokens of the vocabulary that make a third, found ${shown(merge)}`,
      );
    }
    mergeIds.set(ids as number[], 3 * rank);
  }
  return mergeIds;
}
