/**
 * Trains the built-in model and the dense model it is compared with: `npm run train:builtin [-- dense]`.
 * Tales and arithmetic first; the last quarter, while the learning rate falls, is mostly chat.
 */
import { appendFile, copyFile, mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { parseConfig } from '../src/model/config.ts';
import { packDocuments, type TokenDocument } from '../src/train/packed-documents.ts';
import { createParameters } from '../src/train/parameters.ts';
import { writeModel } from '../src/train/training-checkpoint.ts';
import { trainModel } from '../src/train/training-run.ts';
import {
  arithmeticChat,
  type ChatExample,
  COLLECTIONS,
  type Collection,
  collection,
  here,
  isHeldOut,
  storyChat,
} from './builtin-data.ts';

const SEED = 1;
const SEQUENCE = 512;
const ROWS = 4096;
const STEPS = Number(process.env.STEPS ?? 1500);
const CHAT_SHARE = 0.3;
const PROBLEMS = { first: 45_000, chat: 20_000 };

const variant = process.argv[2] === 'dense' ? 'dense' : 'moe';
const folder = path.join(here, 'farthing-tiny');
const tokenizerPaths = ['tokenizer.json', 'tokenizer_config.json'].map((name) => path.join(folder, name));
const [tokenizerJson, tokenizerConfig] = await Promise.all(
  tokenizerPaths.map(async (file) => JSON.parse(await readFile(file, 'utf8'))),
);
const tokenizer = new Tokenizer(tokenizerJson, tokenizerConfig);
const encode = (text: string): number[] => tokenizer.encode(text, { add_special_tokens: false }).ids;
const [bos, eos, user, assistant] = ['<|bos|>', '<|eos|>', '<|user|>', '<|assistant|>'].map(
  (token) => encode(token)[0]!,
) as [number, number, number, number];

const configJson = JSON.parse(
  await readFile(path.join(here, `${variant === 'moe' ? 'farthing-tiny' : 'dense-baseline'}.config.json`), 'utf8'),
);
const config = parseConfig(configJson, `${variant} config`);

const told = (text: string): TokenDocument => ({ ids: [bos, ...encode(text), eos] });
/** A conversation of one turn; the prompt is read, not learnt. */
const chatted = ({ prompt, reply }: ChatExample): TokenDocument => {
  const before = [bos, user, ...encode(prompt), assistant];
  const after = [...encode(reply), eos];
  return { ids: [...before, ...after], trained: [...before.map(() => 0), ...after.map(() => 1)] };
};

const first: TokenDocument[] = [];
const chat: TokenDocument[] = [];
const heldOut: TokenDocument[] = [];
let heldOutBytes = 0;
for (const name of Object.keys(COLLECTIONS) as Collection[]) {
  const documents = await collection(name);
  const training = documents.filter((document) => !isHeldOut(document));
  for (const document of documents.filter(isHeldOut)) {
    if (name === 'classic-books' || name === 'standard-ebooks') continue;
    heldOut.push(told(document.text));
    heldOutBytes += Buffer.byteLength(document.text);
  }
  const weight = COLLECTIONS[name];
  const part = weight < 1 ? training.slice(0, Math.ceil(training.length * weight)) : training;
  const encoded = part.map(({ text }) => told(text));
  for (let r = 0; r < Math.max(1, Math.floor(weight)); r++) first.push(...encoded);
  if (name === 'tinystories' || name === 'storybooks' || name === 'fairy-tales') {
    for (let variation = 0; variation < (name === 'tinystories' ? 3 : 1); variation++) {
      training.forEach((document, i) => {
        const example = storyChat(document, SEED + variation, i);
        if (example && example.reply.length < 2200) chat.push(chatted(example));
      });
    }
  }
}
for (let i = 0; i < PROBLEMS.first; i++) first.push(chatted(arithmeticChat(SEED, i, 'train')));
for (let i = 0; i < PROBLEMS.chat; i++) chat.push(chatted(arithmeticChat(SEED + 1, i, 'train')));

const firstData = packDocuments(first, { sequence: SEQUENCE, rows: ROWS, seed: SEED });
const chatData = packDocuments(chat, { sequence: SEQUENCE, rows: ROWS, seed: SEED + 1 });
const validationData = packDocuments(heldOut, { sequence: SEQUENCE, rows: ROWS, seed: SEED });
const validation = Array.from({ length: Math.min(12, validationData.batches) }, (_, i) => validationData.batch(i));
const turn = Math.round(STEPS * (1 - CHAT_SHARE));
const data = {
  tokens: firstData.tokens + chatData.tokens,
  batches: STEPS,
  // one batch in four goes on with tales while the chat phase lasts
  batch: (i: number) => (i < turn || i % 4 === 0 ? firstData.batch(i) : chatData.batch(i - turn)),
};
const bytesPerToken = heldOutBytes / heldOut.reduce((sum, { ids }) => sum + ids.length, 0);

const parameters = createParameters(config, SEED);
const runs = path.join('runs', variant);
await mkdir(runs, { recursive: true });
const log = path.join(runs, 'metrics.jsonl');
console.log(
  `${variant}: ${parameters.count} parameters; first ${firstData.tokens} tokens, chat ${chatData.tokens} (${chat.length} dialogues), ` +
    `validation ${validation.length} batches, ${bytesPerToken.toFixed(3)} bytes per token`,
);
const begin = performance.now();
const settings = {
  schedule: { shape: 'wsd', peak: 3e-3, floor: 0.03, warmupSteps: 60, steps: STEPS, decayShare: CHAT_SHARE },
  adamw: { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 },
  rows: ROWS,
  accumulate: 1,
  clip: 1,
  mtpWeight: 0.2,
  balanceRate: 0.005,
  validateEvery: 100,
  checkpointEvery: 100,
} as const;
for await (const report of trainModel(config, parameters, data, validation, settings, {
  checkpoints: path.join(runs, 'checkpoints'),
  companions: tokenizerPaths,
})) {
  const bitsPerByte = report.validation === undefined ? undefined : report.validation / Math.LN2 / bytesPerToken;
  await appendFile(log, `${JSON.stringify({ ...report, bitsPerByte })}\n`);
  const elapsed = (performance.now() - begin) / 1000;
  if (report.step % 10 === 0 || bitsPerByte !== undefined) {
    console.log(
      `step ${report.step}/${STEPS} loss ${report.loss.toFixed(3)} mtp ${report.mtpLoss?.toFixed(3) ?? '-'} lr ${report.learningRate.toExponential(1)} ` +
        `norm ${report.gradientNorm.toFixed(2)} load ${report.imbalance?.toFixed(2) ?? '-'} ${Math.round(report.tokens / report.seconds)} tok/s ` +
        `${(elapsed / 60).toFixed(1)} min${bitsPerByte === undefined ? '' : ` validation ${bitsPerByte.toFixed(4)} bits/byte`}`,
    );
  }
}
if (variant === 'moe') {
  await rm(path.join(runs, 'model'), { recursive: true, force: true });
  await writeModel(path.join(runs, 'model'), config, parameters, tokenizerPaths);
  for (const name of ['config.json', 'model.safetensors'])
    await copyFile(path.join(runs, 'model', name), path.join(folder, name));
}
