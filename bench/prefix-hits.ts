/**
 * How soon the second turn of a long conversation begins, against the first: with the conversation in memory, and read from
 * disk after a restart of the server. `npx tsx bench/prefix-hits.ts` (the medium shape, 8,192 tokens, 3 conversations;
 * about 2 minutes) or `--quick` (the small shape); `--shape`, `--tokens`, `--rounds`. The time is that of a client that asks
 * for one token. What the turns answer must be the same to the bit. Writes bench/results/prefix-hits.json.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { uniform } from '../src/engine/random.ts';
import { SHAPES } from '../src/model/random-checkpoint.ts';
import { type Served, spawnServe } from '../test/server/spawn-serve.ts';
import { oneOf, randomModel, vocabularyOf } from './random-models.ts';
import { origin, writeResult } from './result-file.ts';

const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean' },
    shape: { type: 'string' },
    tokens: { type: 'string', default: '8192' },
    rounds: { type: 'string', default: '3' },
  },
});
const shape = oneOf('shape', SHAPES, options.shape ?? (options.quick ? 'small' : 'medium'));
const [tokens, rounds] = [Number(options.tokens), Number(options.rounds)];
/** Of the second turn, after the first: one block, so that the turn from memory leaves nothing that the one from disk finds. */
const NEW_TOKENS = 64;
const WANTED = { memory: 0.05, disk: 0.15 };

const from = origin();
const model = await randomModel(shape, 'fp8');
const folder = await mkdtemp(path.join(os.tmpdir(), 'prefix-hits-'));
const idsOf = (conversation: number, count: number) =>
  Array.from({ length: count }, (_, i) => 2 + Math.floor(uniform(conversation, i) * (vocabularyOf(shape) - 2)));
const conversations = Array.from({ length: rounds }, (_, i) => i + 1);

const serve = () =>
  spawnServe('--model', model, '--sequences', '2', '--cache', '4GiB', '--disk-cache', folder, '--waiting', '0');
async function stop({ process, exit }: Served): Promise<void> {
  process.kill('SIGTERM');
  await exit;
}

interface Turn {
  readonly ms: number;
  readonly hits: number;
  /** The token's, which tells answers apart. */
  readonly logprob: number;
}

async function turn({ url }: Served, prompt: readonly number[]): Promise<Turn> {
  const body = { model: path.basename(model), prompt, max_tokens: 1, temperature: 0, logprobs: 0 };
  const start = performance.now();
  const response = await fetch(`${url}/v1/completions`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify(body),
  });
  const { choices, usage } = (await response.json()) as {
    choices: [{ logprobs: { token_logprobs: [number] } }];
    usage: { prompt_cache_hit_tokens: number };
  };
  const ms = performance.now() - start;
  return { ms, hits: usage.prompt_cache_hit_tokens, logprob: choices[0].logprobs.token_logprobs[0] };
}

const before = await serve();
await turn(before, idsOf(0, 300));
const rows: { firstMs: number; memoryMs: number; diskMs: number; logprob: number }[] = [];
for (const conversation of conversations) {
  const first = await turn(before, idsOf(conversation, tokens));
  const second = await turn(before, idsOf(conversation, tokens + NEW_TOKENS));
  expectHits(first, 0);
  expectHits(second, tokens);
  rows.push({ firstMs: first.ms, memoryMs: second.ms, diskMs: 0, logprob: second.logprob });
}
await stop(before);
const after = await serve();
await turn(after, idsOf(0, 300));
for (const [i, conversation] of conversations.entries()) {
  const second = await turn(after, idsOf(conversation, tokens + NEW_TOKENS));
  expectHits(second, tokens);
  if (second.logprob !== rows[i]!.logprob) throw new Error('from disk the answer is another than from memory');
  rows[i]!.diskMs = second.ms;
}
await stop(after);
await rm(folder, { recursive: true });

function expectHits({ hits }: Turn, wanted: number): void {
  if (hits !== wanted) throw new Error(`${hits} tokens of the prompt were found in the cache, not ${wanted}`);
}

const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
console.log(
  `${shape}, ${tokens} tokens, then ${NEW_TOKENS} more\nfirst turn   second from memory   second from disk, after a restart`,
);
for (const { firstMs, memoryMs, diskMs } of rows) {
  const [memory, disk] = [memoryMs, diskMs].map((ms) => `${ms.toFixed(0)} ms, ${percent(ms / firstMs)}`);
  console.log(`${`${firstMs.toFixed(0)} ms`.padEnd(13)}${memory!.padEnd(21)}${disk}`);
}
const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1]!;
const ratios = {
  memory: median(rows.map(({ firstMs, memoryMs }) => memoryMs / firstMs)),
  disk: median(rows.map(({ firstMs, diskMs }) => diskMs / firstMs)),
};
console.log(
  `medians ${percent(ratios.memory)} from memory (wanted: under ${percent(WANTED.memory)}), ` +
    `${percent(ratios.disk)} from disk (wanted: under ${percent(WANTED.disk)})`,
);
await writeResult('prefix-hits', from, { shape, tokens, newTokens: NEW_TOKENS, ratios, wanted: WANTED, rows });
