/**
 * A whole model folder for tests of what stands above the model: the random weights of golden/v3-tiny with a small
 * byte-level tokenizer and a chat template. What it says is noise; that it says the same noise every time is the point.
 */
import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll } from 'vitest';

const WEIGHTS = 'test/fixtures/golden/v3-tiny';

const PLAIN_TEMPLATE =
  "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{% endfor %}" +
  '{% if add_generation_prompt %}<|assistant|>{% endif %}';

const made: string[] = [];
afterAll(async () => {
  for (const folder of made) await rm(folder, { recursive: true, force: true });
});

/** @returns the folder; it is removed after the file's tests */
export async function makeTinyModel({ thinks = false, context = 512 } = {}): Promise<string> {
  const parent = await mkdtemp(path.join(os.tmpdir(), 'farthing-test-'));
  made.push(parent);
  const folder = path.join(parent, 'tiny-model');
  await cp(WEIGHTS, folder, { recursive: true, filter: (file) => !file.includes('golden.') });
  const config = JSON.parse(await readFile(path.join(WEIGHTS, 'config.json'), 'utf8'));
  const write = (name: string, json: unknown) => writeFile(path.join(folder, name), JSON.stringify(json));
  await write('config.json', { ...config, max_position_embeddings: context });
  await write('tokenizer.json', tokenizerJson());
  await write('tokenizer_config.json', {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: '<bos>',
    eos_token: '<eos>',
    add_bos_token: false,
    chat_template: thinks ? PLAIN_TEMPLATE.replace('<|assistant|>', '<|assistant|><think>\n') : PLAIN_TEMPLATE,
  });
  return folder;
}

/** Ids 0 and 1 are <bos> and <eos> as in config.json; then special tokens, the 256 bytes, and pairs of letters. */
function tokenizerJson() {
  const special = ['<bos>', '<eos>', '<|system|>', '<|user|>', '<|assistant|>', '<think>', '</think>'];
  const pairs = [...'etaoinshrdl'].flatMap((a) => [...'aeioubcdfgh'].map((b) => [a, b] as const));
  const merges = pairs.slice(0, 384 - special.length - 256);
  const words = [...special, ...byteLetters(), ...merges.map((pair) => pair.join(''))];
  return {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: special.map((content, id) => {
      const isTag = content.endsWith('think>');
      return { id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: !isTag };
    }),
    normalizer: null,
    pre_tokenizer: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    post_processor: null,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      vocab: Object.fromEntries(words.map((word, id) => [word, id])),
      merges: merges.map((pair) => pair.join(' ')),
    },
  };
}

/** The letters that GPT-2's byte-level alphabet writes bytes with: printable ones as themselves, others from U+0100. */
function byteLetters(): string[] {
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
    return String.fromCodePoint(printable ? byte : next++);
  });
}
