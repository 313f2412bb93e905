/**
 * Text to token ids and back, by the `tokenizer.json` of a checkpoint folder. Normalising and splitting are the
 * library's; decoding is a table from id to bytes, so that a stream gives exactly what decoding all at once gives.
 */
import { Tokenizer as Tokenizers } from '@huggingface/tokenizers';
import { createPairMerger } from './pair-merger.ts';
import { tokenBytes } from './token-bytes.ts';
import {
  contentOf,
  readTokenizerConfig,
  readTokenizerFile,
  type TokenizerConfig,
  TokenizerError,
  type TokenizerFile,
} from './tokenizer-file.ts';

export interface Tokenizer {
  /** One more than the highest token id. */
  readonly vocabSize: number;
  readonly bosTokenId: number | null;
  /** Tokens that end a text; none where the folder names none. */
  readonly eosTokenIds: readonly number[];
  /**
   * Special tokens written in the text (`<|im_start|>`) are recognised as such.
   * @param addSpecialTokens add bos and eos as the tokenizer's makers do; default true
   */
  encode(text: string, options?: { readonly addSpecialTokens?: boolean }): number[];
  /** The text of ids; bytes that are no UTF-8 become U+FFFD, and ids that stand for no token become nothing. */
  decode(ids: ArrayLike<number>, options?: DecodeOptions): string;
  /** The bytes an id stands for, none for an id without token; do not write to them. */
  bytes(id: number, options?: DecodeOptions): Uint8Array;
  /** Whether the makers' decoder drops the space that begins a text (SentencePiece). */
  readonly dropsFirstSpace: boolean;
}

export interface DecodeOptions {
  /** Leave out what only steers the model, such as eos; default true. */
  readonly skipSpecialTokens?: boolean;
}

/** Decodes tokens as they come. */
export interface TextStream {
  /** Text that became certain with this token: whole characters only, possibly none. */
  push(id: number): string;
  /** The rest, at the end: U+FFFD where the tokens stopped within a character. */
  flush(): string;
}

/**
 * Reads the tokenizer of a checkpoint folder.
 * @returns null when the folder has no tokenizer.json
 * @throws TokenizerError naming file, field, expected and found
 */
export async function loadTokenizer(folder: string): Promise<Tokenizer | null> {
  const [file, config] = await Promise.all([readTokenizerFile(folder), readTokenizerConfig(folder)]);
  if (!file) return null;
  const library = openLibrary(folder, file);
  const table = tokenBytes(file, folder);
  const special = new Set(file.added_tokens.filter((token) => token.special).map(({ id }) => id));
  const idOf = (name: string, content: string | null) => {
    if (content === null) return null;
    const id = library.token_to_id(content);
    if (id === undefined) {
      throw new TokenizerError(`${folder}/tokenizer_config.json: "${name}": ${content} is no token of tokenizer.json`);
    }
    return id;
  };
  const bosTokenId = idOf('bos_token', contentOf(config.bos_token));
  const eosTokenId = idOf('eos_token', contentOf(config.eos_token));
  const [before, after] = specialTokensAround(library, config, bosTokenId, eosTokenId);
  const none = new Uint8Array();

  const tokenizer: Tokenizer = {
    vocabSize: table.bytes.length,
    bosTokenId,
    eosTokenIds: eosTokenId === null ? [] : [eosTokenId],
    dropsFirstSpace: table.dropsFirstSpace,
    encode(text, { addSpecialTokens = true } = {}) {
      const ids = text === '' ? [] : library.encode(text, { add_special_tokens: false }).ids;
      if (!addSpecialTokens) return ids;
      return [...before, ...ids, ...after];
    },
    decode(ids, options) {
      const stream = createTextStream(tokenizer, options);
      let text = '';
      for (let i = 0; i < ids.length; i++) text += stream.push(ids[i]!);
      return text + stream.flush();
    },
    bytes(id, { skipSpecialTokens = true } = {}) {
      return (skipSpecialTokens && special.has(id) ? undefined : table.bytes[id]) ?? none;
    },
  };
  return tokenizer;
}

/** Decodes one token at a time; the pieces joined are exactly what `decode` gives for all tokens with these options. */
export function createTextStream(tokenizer: Tokenizer, options: DecodeOptions = {}): TextStream {
  const decoder = new TextDecoder('utf-8', { ignoreBOM: true });
  let atStart = tokenizer.dropsFirstSpace;
  return {
    push(id) {
      let bytes = tokenizer.bytes(id, options);
      if (bytes.length === 0) return '';
      if (atStart && bytes[0] === 0x20) bytes = bytes.subarray(1);
      atStart = false;
      return decoder.decode(bytes, { stream: true });
    },
    flush: () => decoder.decode(),
  };
}

/** What is used of the library; its own types do not resolve under Node's rules. */
interface Library {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  token_to_id(token: string): number | undefined;
  readonly post_processor: {
    post_process(tokens: string[], pair: null, special: boolean): { tokens: string[] };
  } | null;
  readonly model: { bpe(word: string): string[] };
}

/** The library with every stage of the file but the merging of pairs, which is ours. */
function openLibrary(folder: string, file: TokenizerFile): Library {
  const stages = { normalizer: null, pre_tokenizer: null, post_processor: null, decoder: null };
  try {
    const library: Library = new Tokenizers({ ...stages, ...file, model: { ...file.model, merges: [] } }, {});
    library.model.bpe = createPairMerger(file.vocabulary, file.mergeIds);
    return library;
  } catch (cause) {
    throw new TokenizerError(`${folder}/tokenizer.json: ${(cause as Error).message}`, { cause });
  }
}

/**
 * Ids that the makers put before and after a text: by the post-processor of tokenizer.json, else by `add_bos_token`
 * and `add_eos_token` of tokenizer_config.json.
 */
function specialTokensAround(
  library: Library,
  config: TokenizerConfig,
  bos: number | null,
  eos: number | null,
): [before: number[], after: number[]] {
  const text = '\u0000text';
  const tokens: string[] = library.post_processor?.post_process([text], null, true).tokens ?? [text];
  const ids = (some: readonly string[]) => some.flatMap((token) => library.token_to_id(token) ?? []);
  const [before, after] = [ids(tokens.slice(0, tokens.indexOf(text))), ids(tokens.slice(tokens.indexOf(text) + 1))];
  if (config.add_bos_token && bos !== null && before[0] !== bos) before.unshift(bos);
  if (config.add_eos_token && eos !== null && after.at(-1) !== eos) after.push(eos);
  return [before, after];
}
