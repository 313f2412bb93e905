/**
 * Many requests at once beside llama.cpp: 32 of 512 tokens in and 128 out on the medium shape, all sent together, through
 * our engine as `farthing serve` sets it up, and through node-llama-cpp with a sequence for each (the better of the batch
 * sizes tried). `npx tsx bench/concurrent.ts` (about 5 minutes) or `--quick` (the small shape, 8 requests); `--shape`,
 * `--requests`, `--prompt`, `--decode`, `--threads`, `--weights`, `--rounds`. Some of the answers are also asked for alone
 * and must be the same. Needs the peer: `npm ci --prefix bench`. Writes bench/results/concurrent-SHAPE-WEIGHTS-THREADS.json.
 */
import { execFileSync } from 'node:child_process';
import { parseArgs } from 'node:util';
import { setThreads } from '../src/backend/native.ts';
import { loadModel } from '../src/index.ts';
import { SHAPES } from '../src/model/random-checkpoint.ts';
import { oneOf, PEER_TYPES, peerModel, randomModel, vocabularyOf } from './random-models.ts';
import { origin, writeResult } from './result-file.ts';

const quick = process.argv.includes('--quick');
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    shape: { type: 'string', default: quick ? 'small' : 'medium' },
    weights: { type: 'string', default: 'fp8' },
    requests: { type: 'string', default: quick ? '8' : '32' },
    prompt: { type: 'string', default: quick ? '128' : '512' },
    decode: { type: 'string', default: quick ? '32' : '128' },
    threads: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '1' },
  },
});
const shape = oneOf('shape', SHAPES, options.shape);
const weights = oneOf('weights', PEER_TYPES, options.weights);
const [requests, prompt, decode] = [Number(options.requests), Number(options.prompt), Number(options.decode)];
const [threads, rounds] = [Number(options.threads), Number(options.rounds)];
const PEER_BATCHES = [512, 2048];
const vocabulary = vocabularyOf(shape);

interface Run {
  readonly seconds: number;
  /** Until every request had its first token: what reading the prompts took. */
  readonly lastFirstTokenSeconds: number;
}

const folder = await randomModel(shape, weights);
const gguf = await peerModel(shape, weights);
setThreads(threads);
const from = origin(threads);
const model = await loadModel(folder, { sequences: requests });

/** Tokens that no other request and no other round begins with. */
const promptOf = (request: number, round: number) =>
  Array.from(
    { length: prompt },
    (_, i) => (((i + 1) * (request + 1 + 1000 * round) * 7919 + 13) % (vocabulary - 8)) + 4,
  );

/** @param tenant requests of another find nothing in the prefix cache */
async function answer(tokens: readonly number[], tenant = '') {
  const sampling = { temperature: 0, topP: 1, topK: 0, seed: 0 };
  const request = { prompt: tokens, maxTokens: decode, sampling, stopTokens: new Set<number>(), topLogprobs: null };
  const generation = model.engine.submit({ ...request, tenant });
  const written: number[] = [];
  for await (const { token } of generation) written.push(token);
  return { written, firstToken: generation.times.firstToken };
}

async function ours(round: number): Promise<Run & { readonly answers: readonly (readonly number[])[] }> {
  const start = performance.now();
  const answers = await Promise.all(Array.from({ length: requests }, (_, i) => answer(promptOf(i, round))));
  return {
    seconds: (performance.now() - start) / 1000,
    lastFirstTokenSeconds: (Math.max(...answers.map(({ firstToken }) => firstToken)) - start) / 1000,
    answers: answers.map(({ written }) => written),
  };
}

function peer(round: number, batchSize: number): Run & { readonly batchSize: number } {
  const workload = { requests, prompt, decode, vocabulary, round, threads, batchSize };
  const printed = execFileSync('node', ['bench/llama-concurrent.mjs', gguf, JSON.stringify(workload)], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
  });
  return { batchSize, ...(JSON.parse(printed) as Run) };
}

const rates = ({ seconds, lastFirstTokenSeconds }: Run) => ({
  total: (requests * (prompt + decode)) / seconds,
  output: (requests * decode) / seconds,
  read: (requests * prompt) / lastFirstTokenSeconds,
});
const show = (name: string, run: Run) => {
  const { total, output, read } = rates(run);
  console.log(
    `${name.padEnd(26)}${run.seconds.toFixed(1).padStart(7)} s  ${total.toFixed(0).padStart(7)} tokens/s in and out, ` +
      `${output.toFixed(0)} out; all prompts read after ${run.lastFirstTokenSeconds.toFixed(1)} s (${read.toFixed(0)} tokens/s)`,
  );
};

await answer(promptOf(requests, 0).slice(0, 32)); // weights are read and threads started before anything is timed
const runs: object[] = [];
const ratios: number[] = [];
for (let round = 1; round <= rounds; round++) {
  const mine = await ours(round);
  show(`ours, ${weights}`, mine);
  const theirs = PEER_BATCHES.map((batchSize) => peer(round, batchSize));
  for (const each of theirs) show(`peer, ${PEER_TYPES[weights]}, batch ${each.batchSize}`, each);
  const best = theirs.reduce((a, b) => (b.seconds < a.seconds ? b : a));
  ratios.push(best.seconds / mine.seconds);
  console.log(`ratio ${ratios.at(-1)!.toFixed(2)}`);
  for (const alone of [0, requests - 1]) {
    const { written } = await answer(promptOf(alone, round), 'alone');
    if (written.join() !== mine.answers[alone]!.join()) throw new Error(`request ${alone} alone has other tokens`);
  }
  const { seconds, lastFirstTokenSeconds } = mine;
  const measured = { seconds, lastFirstTokenSeconds, tokensPerSecond: rates(mine) };
  runs.push({ ours: measured, peer: theirs.map((each) => ({ ...each, tokensPerSecond: rates(each) })) });
  const ratio = [...ratios].sort((a, b) => a - b)[ratios.length >> 1]!;
  const workload = { shape, ours: weights, peer: PEER_TYPES[weights], requests, prompt, decode };
  await writeResult(`concurrent-${shape}-${weights}-${threads}`, from, { ...workload, ratio, rounds: runs });
}
await model.close();
