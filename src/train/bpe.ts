/**
 * Training a byte-level byte-pair tokenizer (Sennrich et al. 2016; byte alphabet of GPT-2) and saving it as the
 * standard tokenizer.json. Digits stand alone, so that numbers are read and written digit by digit.
 */

/** Words with an optional leading space, single digits, runs of signs, runs of space. */
export const SPLIT_PATTERN = "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

export interface Bpe {
  /** Every token in order of its id, in the byte alphabet; special tokens come first, as they are. */
  readonly vocabulary: readonly string[];
  readonly merges: readonly (readonly [string, string])[];
}

/**
 * Learns merges until the vocabulary has `size` entries or no pair occurs twice. The most frequent pair is merged
 * first; ties go to the pair with the smaller ids, so the result is a function of the counts alone.
 * @param texts an iterable that is read once
 */
export function trainBpe(texts: Iterable<string>, size: number, specials: readonly string[]): Bpe {
  const alphabet = byteAlphabet();
  const smallest = specials.length + alphabet.length;
  if (size < smallest)
    throw new RangeError(`a vocabulary of ${size}, expected at least ${smallest} (bytes and special tokens)`);
  const vocabulary = [...specials, ...[...alphabet].sort()];
  const idOf = new Map(vocabulary.map((token, id) => [token, id]));
  const words = countWords(texts).map(([word, count]) => ({
    ids: Array.from(Buffer.from(word, 'utf8'), (byte) => idOf.get(alphabet[byte]!)!),
    count,
  }));

  const pairs = new Map<number, { count: number; words: Set<number> }>();
  const key = (a: number, b: number) => a * 2 ** 24 + b;
  const change = (a: number, b: number, by: number, word: number) => {
    const pair = pairs.get(key(a, b)) ?? { count: 0, words: new Set() };
    pair.count += by;
    if (by > 0) pair.words.add(word);
    if (pair.count > 0) pairs.set(key(a, b), pair);
    else pairs.delete(key(a, b));
  };
  const countPairs = (word: number, sign: 1 | -1) => {
    const { ids, count } = words[word]!;
    for (let i = 0; i + 1 < ids.length; i++) change(ids[i]!, ids[i + 1]!, sign * count, word);
  };
  for (let word = 0; word < words.length; word++) countPairs(word, 1);

  const merges: [string, string][] = [];
  while (vocabulary.length < size) {
    let best = -1;
    let most = 1;
    for (const [pair, { count }] of pairs) {
      if (count > most || (count === most && best >= 0 && pair < best)) [best, most] = [pair, count];
    }
    if (best < 0) break;
    const [a, b] = [Math.floor(best / 2 ** 24), best % 2 ** 24];
    const merged = vocabulary.length;
    merges.push([vocabulary[a]!, vocabulary[b]!]);
    vocabulary.push(vocabulary[a]! + vocabulary[b]!);
    for (const word of [...pairs.get(best)!.words]) {
      countPairs(word, -1);
      words[word]!.ids = mergePair(words[word]!.ids, a, b, merged);
      countPairs(word, 1);
    }
  }
  return { vocabulary, merges };
}

function mergePair(ids: number[], a: number, b: number, merged: number): number[] {
  const out: number[] = [];
  for (let i = 0; i < ids.length; i++) {
    if (ids[i] === a && ids[i + 1] === b) {
      out.push(merged);
      i++;
    } else {
      out.push(ids[i]!);
    }
  }
  return out;
}

function countWords(texts: Iterable<string>): [string, number][] {
  const split = new RegExp(SPLIT_PATTERN, 'gu');
  const counts = new Map<string, number>();
  for (const text of texts) {
    for (const [word] of text.matchAll(split)) counts.set(word, (counts.get(word) ?? 0) + 1);
  }
  return [...counts];
}

/** GPT-2's printable stand-in for each byte: itself where it is a visible Latin-1 character, else 256 and up. */
export function byteAlphabet(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const visible = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(visible ? byte : next++);
  });
}

export interface TokenizerNames {
  readonly bos: string;
  readonly eos: string;
  readonly pad: string;
  /** Jinja source of the chat template. */
  readonly chatTemplate: string;
  readonly maxLength: number;
  /** Special tokens that are part of the text a user sees (`<think>`), so decoding keeps them. */
  readonly shown: readonly string[];
}

/** The two files that Hugging Face tokenizers read: tokenizer.json and tokenizer_config.json. */
export function tokenizerFiles(bpe: Bpe, specials: readonly string[], names: TokenizerNames) {
  const idOf = new Map(bpe.vocabulary.map((token, id) => [token, id]));
  const bosId = idOf.get(names.bos)!;
  const tokenizer = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content) => ({
      id: idOf.get(content)!,
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: !names.shown.includes(content),
    })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: SPLIT_PATTERN }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: 'TemplateProcessing',
      single: [{ SpecialToken: { id: names.bos, type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
      pair: [
        { SpecialToken: { id: names.bos, type_id: 0 } },
        { Sequence: { id: 'A', type_id: 0 } },
        { Sequence: { id: 'B', type_id: 0 } },
      ],
      special_tokens: { [names.bos]: { id: names.bos, ids: [bosId], tokens: [names.bos] } },
    },
    decoder: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: false,
      vocab: Object.fromEntries(idOf),
      merges: bpe.merges.map(([a, b]) => `${a} ${b}`),
    },
  };
  const config = {
    add_bos_token: true,
    add_eos_token: false,
    bos_token: names.bos,
    eos_token: names.eos,
    pad_token: names.pad,
    clean_up_tokenization_spaces: false,
    model_max_length: names.maxLength,
    tokenizer_class: 'PreTrainedTokenizerFast',
    chat_template: names.chatTemplate,
  };
  return { 'tokenizer.json': tokenizer, 'tokenizer_config.json': config };
}
