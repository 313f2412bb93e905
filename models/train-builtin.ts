/**
 * Trains the built-in model and the dense model it is compared with: `npm run train:builtin [-- dense]`.
 * Tales and arithmetic first; the last part, while the learning rate falls, is mostly chat: arithmetic, and tales told with
 * another cast each time, so that the model looks at whom it is asked about. The built-in model is then tuned to tell of two.
 */
import { appendFile, copyFile, mkdir, readFile, rm } from 'node:fs/promises';
import path from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { parseConfig } from '../src/model/config.ts';
import type { CorpusDocument } from '../src/train/corpus.ts';
import { type PackedDocuments, packDocuments, type TokenDocument } from '../src/train/packed-documents.ts';
import { createParameters } from '../src/train/parameters.ts';
import { writeModel } from '../src/train/training-checkpoint.ts';
import { type RunSettings, trainModel } from '../src/train/training-run.ts';
import {
  arithmeticChat,
  type ChatExample,
  COLLECTIONS,
  type Collection,
  collection,
  here,
  isHeldOut,
  openingOf,
  recastChat,
  storyChat,
} from './builtin-data.ts';

const SEED = 1;
const SEQUENCE = 512;
const ROWS = 2048;
const STEPS = Number(process.env.STEPS ?? 6000);
const CHAT_SHARE = 0.36;
/** How many casts every simple tale is told with in the chat part, whole and in its opening, which says whom it is about. */
const CASTS = { whole: 8, opening: 8 };
const TUNING = { steps: 720, peak: 8e-4, casts: 40, whole: 6, problems: 4000 };
const PROBLEMS = { first: 45_000, chat: 24_000 };

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

/** Without the end of the answer, so that it is not learnt to stop there. */
const unfinished = ({ ids, trained }: TokenDocument): TokenDocument => ({
  ids: Array.from(ids).slice(0, -1),
  trained: Array.from(trained ?? []).slice(0, -1),
});

/** Short enough to be an answer of the model. */
const isShort = ({ text }: CorpusDocument) => text.length < 2200;
const answers = (document: CorpusDocument, variation: number, i: number): TokenDocument[] => {
  const example = isShort(document) ? storyChat(document, SEED + variation, i) : null;
  return example ? [chatted(example)] : [];
};

const first: TokenDocument[] = [];
const chat: TokenDocument[] = [];
const heldOut: TokenDocument[] = [];
let heldOutBytes = 0;
for (const name of Object.keys(COLLECTIONS) as Collection[]) {
  const documents = await collection(name);
  const training = documents.filter((document) => !isHeldOut(document));
  const isBooks = name === 'classic-books' || name === 'standard-ebooks';
  for (const document of isBooks ? [] : documents.filter(isHeldOut)) {
    heldOut.push(told(document.text));
    heldOutBytes += Buffer.byteLength(document.text);
  }
  const weight = COLLECTIONS[name];
  const part = training.slice(0, Math.ceil(training.length * weight));
  for (let copy = 0; copy < weight; copy++) {
    // every second reading of a tale answers a request for one
    first.push(...part.flatMap((tale, i) => (copy % 2 === 1 ? answers(tale, copy, i) : [told(tale.text)])));
  }
  if (isBooks) continue;
  for (let cast = 0; cast < CASTS.whole + CASTS.opening; cast++) {
    for (const [i, tale] of training.entries()) {
      if (!isShort(tale)) continue;
      const recast = name === 'tinystories' || name === 'storybooks' ? recastChat(tale, SEED + 100 + cast, i) : null;
      if (!recast && cast < 2) chat.push(...answers(tale, 10 + cast, i));
      else if (recast && cast < CASTS.whole) chat.push(chatted(recast));
      else if (recast) chat.push(unfinished(chatted({ ...recast, reply: openingOf(recast.reply) })));
    }
  }
}
for (let i = 0; i < PROBLEMS.first; i++) first.push(chatted(arithmeticChat(SEED, i, 'train')));
for (let i = 0; i < PROBLEMS.chat; i++) chat.push(chatted(arithmeticChat(SEED + 1, i, 'train')));

const firstData = packDocuments(first, { sequence: SEQUENCE, rows: ROWS, seed: SEED });
const chatData = packDocuments(chat, { sequence: SEQUENCE, rows: ROWS, seed: SEED + 1 });
const validationData = packDocuments(heldOut, { sequence: SEQUENCE, rows: ROWS, seed: SEED });
const validation = Array.from({ length: Math.min(24, validationData.batches) }, (_, i) => validationData.batch(i));
const turn = Math.round(STEPS * (1 - CHAT_SHARE));
const data = {
  tokens: firstData.tokens + chatData.tokens,
  batches: STEPS,
  // one batch in four goes on with tales while the chat phase lasts
  batch: (i: number) => (i < turn || i % 4 === 0 ? firstData.batch(i) : chatData.batch(i - turn)),
};
const bytesPerToken = heldOutBytes / heldOut.reduce((sum, { ids }) => sum + ids.length, 0);

const parameters = createParameters(config, SEED, variant === 'moe' ? 'fp8' : 'bf16');
const runs = path.join('runs', variant);
console.log(
  `${variant}: ${parameters.count} parameters; first ${firstData.tokens} tokens, chat ${chatData.tokens} (${chat.length} dialogues), ` +
    `validation ${validation.length} batches, ${bytesPerToken.toFixed(3)} bytes per token`,
);
const settings = {
  schedule: { shape: 'wsd', peak: 2.5e-3, floor: 0.02, warmupSteps: 150, steps: STEPS, decayShare: CHAT_SHARE },
  adamw: { beta1: 0.9, beta2: 0.98, eps: 1e-8, weightDecay: 0.1 },
  rows: ROWS,
  accumulate: 1,
  clip: 1,
  mtpWeight: 0.3,
  balanceRate: 0.003,
  sequenceBalance: { weight: 1e-4, window: SEQUENCE },
  validateEvery: 250,
  checkpointEvery: 250,
} as const;
await train(runs, data, settings);

/** Trains on `data` in a folder of its own, going on from what was done there. */
async function train(runFolder: string, trained: PackedDocuments, how: RunSettings): Promise<void> {
  await mkdir(runFolder, { recursive: true });
  const begin = performance.now();
  const files = { checkpoints: path.join(runFolder, 'checkpoints'), companions: tokenizerPaths };
  for await (const report of trainModel(config, parameters, trained, validation, how, files)) {
    const bitsPerByte = report.validation === undefined ? undefined : report.validation / Math.LN2 / bytesPerToken;
    await appendFile(path.join(runFolder, 'metrics.jsonl'), `${JSON.stringify({ ...report, bitsPerByte })}\n`);
    const elapsed = (performance.now() - begin) / 1000;
    if (report.step % 20 === 0 || bitsPerByte !== undefined) {
      console.log(
        `step ${report.step}/${how.schedule.steps} loss ${report.loss.toFixed(3)} mtp ${report.mtpLoss?.toFixed(3) ?? '-'} lr ${report.learningRate.toExponential(1)} ` +
          `norm ${report.gradientNorm.toFixed(2)} load ${report.imbalance?.toFixed(2) ?? '-'} ${Math.round(report.tokens / report.seconds)} tok/s ` +
          `${(elapsed / 60).toFixed(1)} min${bitsPerByte === undefined ? '' : ` validation ${bitsPerByte.toFixed(4)} bits/byte`}`,
      );
    }
  }
}

if (variant === 'moe') {
  // tales of two tell of both from the beginning; one reading in ten goes on with what was learnt before
  const tuning = first.filter((_, i) => i % 10 === 0);
  const tales = (await collection('tinystories')).filter((tale) => !isHeldOut(tale) && isShort(tale));
  for (let cast = 0; cast < TUNING.casts; cast++) {
    for (const [i, tale] of tales.entries()) {
      const seed = SEED + 200 + cast;
      const example = recastChat(tale, seed, i, 'both') ?? (cast === 0 ? recastChat(tale, seed, i) : null);
      if (!example) continue;
      if (cast < TUNING.whole) tuning.push(chatted(example));
      else tuning.push(unfinished(chatted({ ...example, reply: openingOf(example.reply) })));
    }
  }
  for (let i = 0; i < TUNING.problems; i++) tuning.push(chatted(arithmeticChat(SEED + 2, i, 'train')));
  const tuningData = packDocuments(tuning, { sequence: SEQUENCE, rows: ROWS, seed: SEED + 2 });
  console.log(`tuning: ${tuningData.tokens} tokens`);
  await train(path.join(runs, 'tuning'), tuningData, {
    ...settings,
    schedule: { ...settings.schedule, peak: TUNING.peak, warmupSteps: 30, steps: TUNING.steps, decayShare: 0.9 },
  });
  await rm(path.join(runs, 'model'), { recursive: true, force: true });
  await writeModel(path.join(runs, 'model'), config, parameters, tokenizerPaths);
  for (const name of ['config.json', 'model.safetensors'])
    await copyFile(path.join(runs, 'model', name), path.join(folder, name));
}
