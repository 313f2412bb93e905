/**
 * What the built-in model can do, measured: `npm run evaluate:builtin`. Prints, and writes models/evaluation.json:
 * accuracy on unseen arithmetic, how often a tale is about whom it was asked for and how much of it was read in training,
 * unedited samples with their prompts and seeds, and the training runs' own figures.
 */
import { existsSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { loadModel } from '../src/index.ts';
import { writeLossCurve } from '../src/train/loss-curve.ts';
import { readMetrics, type StepMetrics } from '../src/train/metrics-file.ts';
import { arithmeticProblem } from './arithmetic.ts';
import { COLLECTIONS, type Collection, collection, here, isHeldOut } from './builtin-data.ts';
import { wordsOf } from './recast.ts';

const PROBLEMS = Number(process.argv[2] ?? 500);
const SAMPLES = [
  { prompt: 'Tell me a story about a fox and a crow.', seed: 1 },
  { prompt: 'Tell me a story about a brave mouse.', seed: 2 },
  { prompt: 'Write a story about a girl and a bird.', seed: 3 },
  { prompt: 'Tell me a short story about a king.', seed: 4 },
  { prompt: 'Tom has 17 apples. He buys 5 more and gives 3 to Anna. How many apples does Tom have now?', seed: 5 },
];

const model = await loadModel(path.join(here, 'farthing-tiny'), { waiting: PROBLEMS });
const answer = async (prompt: string, options: { temperature: number; seed: number; maxTokens: number }) => {
  let text = '';
  for await (const piece of model.generate({ messages: [{ role: 'user', content: prompt }], ...options }))
    text += piece.text;
  return text;
};

const results = { 1: { right: 0, total: 0 }, 2: { right: 0, total: 0 } };
await Promise.all(
  Array.from({ length: PROBLEMS }, async (_, i) => {
    const { question, value, steps } = arithmeticProblem(99, i, 'test');
    const text = await answer(question, { temperature: 0, seed: 0, maxTokens: 120 });
    const spoken = text.split('</think>').at(-1)!;
    const last = /(\d+)(?!.*\d)/s.exec(spoken)?.[1];
    results[steps].total++;
    if (Number(last) === value) results[steps].right++;
  }),
);
const right = results[1].right + results[2].right;
console.log(`arithmetic: ${right} of ${PROBLEMS} unseen problems right`, results);

/** Whether tales are about whom they were asked for: each of two animals is in the answer. */
const CAST = ['fox', 'crow', 'mouse', 'bear', 'frog', 'cat', 'owl', 'dog', 'rabbit', 'lion', 'duck', 'bee'];
const pairs = CAST.flatMap((one, i) => CAST.slice(i + 1).map((two) => [one, two] as const));
const topics = { tales: pairs.length, one: 0, both: 0 };
const tales: string[] = [];
await Promise.all(
  pairs.map(async ([one, two], seed) => {
    const told = await answer(`Tell me a story about a ${one} and a ${two}.`, {
      temperature: 0.5,
      seed,
      maxTokens: 400,
    });
    const named = [one, two].filter((animal) => new RegExp(`\\b${animal}`, 'i').test(told)).length;
    if (named >= 1) topics.one++;
    if (named === 2) topics.both++;
    tales.push(told);
  }),
);
console.log('tales of two animals:', topics);

/** How much of the tales was read in training: the share of their runs of eight words that occur there, whoever it is told of. */
const RUN = 8;
const runsOf = (text: string) => {
  const words = wordsOf(text);
  return Array.from({ length: Math.max(0, words.length - RUN + 1) }, (_, i) => words.slice(i, i + RUN).join(' '));
};
const read = new Set<string>();
for (const name of Object.keys(COLLECTIONS) as Collection[])
  for (const document of await collection(name))
    if (!isHeldOut(document)) for (const run of runsOf(document.text)) read.add(run);
const told = tales.flatMap(runsOf);
const repeated = told.filter((run) => read.has(run)).length / told.length;
console.log(`${(100 * repeated).toFixed(0)} % of the runs of ${RUN} words in these tales occur in training`);

const samples = [];
for (const { prompt, seed } of SAMPLES) {
  const text = await answer(prompt, { temperature: 0.5, seed, maxTokens: 400 });
  samples.push({ prompt, seed, temperature: 0.5, text });
  console.log(`\n> ${prompt} (seed ${seed})\n${text}`);
}
await model.close();

/** A resumed run repeats steps in its log: the later line counts. */
const logs: Record<string, StepMetrics[]> = {};
for (const name of ['moe', 'dense', 'moe/tuning']) {
  const log = path.join('runs', name, 'metrics.jsonl');
  if (existsSync(log)) logs[name] = await readMetrics(log);
}
const runs = Object.fromEntries(
  Object.entries(logs).map(([name, reports]) => [
    name,
    {
      steps: reports.length,
      tokens: reports.reduce((sum, { tokens }) => sum + tokens, 0),
      bitsPerByte: reports.at(-1)?.bitsPerByte,
      stepHours: reports.reduce((sum, { seconds }) => sum + seconds, 0) / 3600,
      imbalance: reports.at(-1)?.imbalance,
    },
  ]),
);
const { 'moe/tuning': _, ...curves } = logs;
if (Object.keys(curves).length > 0) await writeLossCurve(path.join(here, 'loss.svg'), curves);
console.log(runs);
const report = {
  arithmetic: { ...results, accuracy: right / PROBLEMS },
  topics: { ...topics, repeated },
  samples,
  runs,
};
writeFileSync(path.join(here, 'evaluation.json'), `${JSON.stringify(report, null, 2)}\n`);
