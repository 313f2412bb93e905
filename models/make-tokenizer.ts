/** Trains the built-in model's tokenizer on its corpus: `npx tsx models/make-tokenizer.ts [FOLDER]` */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { writeTokenizer } from '../src/tokenizer/write-tokenizer.ts';
import { SPLIT_PATTERN, trainBpe } from '../src/train/bpe.ts';
import { arithmeticChat, COLLECTIONS, type Collection, collection, here, isHeldOut } from './builtin-data.ts';

const VOCABULARY = 4096;
const SPECIALS = ['<|bos|>', '<|eos|>', '<|pad|>', '<|user|>', '<|assistant|>', '<think>', '</think>'];
const CHAT_TEMPLATE = `{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ message['content'] }}
{% elif message['role'] == 'user' %}<|user|>{{ message['content'] }}{% elif message['role'] == 'assistant' %}<|assistant|>{{ message['content'].split('</think>')[-1] }}{{ eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}`;

async function* texts() {
  for (const name of Object.keys(COLLECTIONS) as Collection[]) {
    // each collection counts as often as the model will read it, so the words of tales get their own tokens
    const repeats = Math.max(1, Math.round(COLLECTIONS[name]));
    const share = Math.min(1, COLLECTIONS[name] * 4);
    const documents = (await collection(name)).filter((document) => !isHeldOut(document));
    for (let r = 0; r < repeats; r++) {
      for (const document of documents.slice(0, Math.ceil(documents.length * share))) yield document.text;
    }
  }
  for (let i = 0; i < 10_000; i++) {
    const { prompt, reply } = arithmeticChat(1, i, 'train');
    yield `${prompt}\n${reply.replace(/<\/?think>/g, '\n')}`;
  }
}

const all: string[] = [];
for await (const text of texts()) all.push(text);
const bpe = trainBpe(all, VOCABULARY, SPECIALS);
const folder = process.argv[2] ?? path.join(here, 'farthing-tiny');
await mkdir(folder, { recursive: true });
await writeTokenizer(folder, {
  ...bpe,
  splitPattern: SPLIT_PATTERN,
  specials: SPECIALS,
  shown: ['<think>', '</think>'],
  bos: '<|bos|>',
  eos: '<|eos|>',
  pad: '<|pad|>',
  chatTemplate: CHAT_TEMPLATE,
  maxLength: 1024,
});
console.log(`${bpe.vocabulary.length} tokens, ${bpe.merges.length} merges in ${folder}`);
