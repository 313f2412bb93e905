/** A trained byte-level tokenizer as the two files of the Hugging Face format. */
import path from 'node:path';
import { replaceFile } from '../numerics/replace-file.ts';

export interface NewTokenizer {
  /** Every token in order of its id, in the byte alphabet; special tokens as they are. */
  readonly vocabulary: readonly string[];
  readonly merges: readonly (readonly [string, string])[];
  /** Pattern of the pieces within which merges are made. */
  readonly splitPattern: string;
  readonly specials: readonly string[];
  /** Those of them that belong to the text a user sees (`<think>`), so that decoding keeps them. */
  readonly shown: readonly string[];
  readonly bos: string;
  readonly eos: string;
  readonly pad: string;
  /** Jinja source. */
  readonly chatTemplate: string;
  /** Longest text in tokens. */
  readonly maxLength: number;
}

/** Writes tokenizer.json and tokenizer_config.json into a folder that exists. */
export async function writeTokenizer(folder: string, tokenizer: NewTokenizer): Promise<void> {
  const files = { 'tokenizer.json': tokenizerJson(tokenizer), 'tokenizer_config.json': configJson(tokenizer) };
  for (const [name, content] of Object.entries(files)) {
    await replaceFile(path.join(folder, name), async (file) => {
      await file.writeFile(`${JSON.stringify(content, null, 1)}\n`);
    });
  }
}

function tokenizerJson({ vocabulary, merges, splitPattern, specials, shown, bos }: NewTokenizer): object {
  const idOf = new Map(vocabulary.map((token, id) => [token, id]));
  const begin = { SpecialToken: { id: bos, type_id: 0 } };
  const sequence = (id: 'A' | 'B') => ({ Sequence: { id, type_id: 0 } });
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: specials.map((content) => ({
      id: idOf.get(content),
      content,
      single_word: false,
      lstrip: false,
      rstrip: false,
      normalized: false,
      special: !shown.includes(content),
    })),
    normalizer: null,
    pre_tokenizer: {
      type: 'Sequence',
      pretokenizers: [
        { type: 'Split', pattern: { Regex: splitPattern }, behavior: 'Isolated', invert: false },
        { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
      ],
    },
    post_processor: {
      type: 'TemplateProcessing',
      single: [begin, sequence('A')],
      pair: [begin, sequence('A'), sequence('B')],
      special_tokens: { [bos]: { id: bos, ids: [idOf.get(bos)], tokens: [bos] } },
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
      merges: merges.map(([left, right]) => `${left} ${right}`),
    },
  };
}

function configJson({ bos, eos, pad, maxLength, chatTemplate }: NewTokenizer): object {
  return {
    add_bos_token: true,
    add_eos_token: false,
    bos_token: bos,
    eos_token: eos,
    pad_token: pad,
    clean_up_tokenization_spaces: false,
    model_max_length: maxLength,
    tokenizer_class: 'PreTrainedTokenizerFast',
    chat_template: chatTemplate,
  };
}
