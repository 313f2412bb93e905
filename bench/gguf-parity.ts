/**
 * Whether an exported GGUF file is the same model in llama.cpp: `npx tsx bench/gguf-parity.ts [DIR …]`, the built-in model
 * and the tiny models of the tests unless folders are given. In F32 (weights, activations, cache) both must give the same
 * log-probabilities and write the same text; exits with 1 where they do not. In BF16 llama.cpp rounds activations and keeps
 * its cache in F16, ours stays F32: there it prints how far apart they are. Needs the peer: `npm ci --prefix bench`.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { here } from '../models/builtin-data.ts';
import { type LanguageModel, loadModel } from '../src/index.ts';
import { exportGguf } from '../src/model/gguf-export.ts';

const COUNT = 32;
/** Nats between two log-probabilities of the same sums in another order. */
const ROUNDING = 1e-3;

const golden = (name: string) => `test/fixtures/golden/${name}`;
const folders =
  process.argv.length > 2
    ? process.argv.slice(2)
    : [
        path.join(here, 'farthing-tiny'),
        ...['qwen2-tiny', 'qwen3-tiny', 'llama-tiny', 'v2lite-tiny', 'v3-tiny'].map(golden),
      ];

interface Answer {
  readonly written: readonly number[];
  readonly logProbabilities: readonly (readonly number[])[];
}

async function answerOf(model: LanguageModel, prompt: readonly number[]): Promise<Answer> {
  const { vocabSize } = model.config;
  const written: number[] = [];
  for (let i = 0; i < COUNT; i++) {
    const logits = (await model.logits([...prompt, ...written])).subarray(-vocabSize);
    written.push(logits.indexOf(logits.reduce((a, b) => Math.max(a, b))));
  }
  const logits = await model.logits(prompt);
  const rows = prompt.map((_, i) => logits.subarray(i * vocabSize, (i + 1) * vocabSize));
  return { written, logProbabilities: rows.map(logSoftmax) };
}

function logSoftmax(logits: Float32Array): number[] {
  const most = logits.reduce((a, b) => Math.max(a, b));
  const sum = logits.reduce((total, logit) => total + Math.exp(logit - most), 0);
  return Array.from(logits, (logit) => logit - most - Math.log(sum));
}

function peerAnswer(file: string, ids: readonly number[], cache: 'F32' | 'F16'): Answer {
  const answer = execFileSync('node', ['bench/llama-greedy.mjs', file, JSON.stringify({ ids, count: COUNT, cache })], {
    encoding: 'utf8',
    timeout: 120_000,
    maxBuffer: 2 ** 30,
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
  });
  return JSON.parse(answer);
}

function compare(ours: Answer, peer: Answer) {
  const differences = ours.logProbabilities.flatMap((row, at) =>
    row.map((value, id) => Math.abs(value - peer.logProbabilities[at]![id]!)),
  );
  differences.sort((a, b) => a - b);
  const parted = ours.written.findIndex((id, i) => id !== peer.written[i]);
  return { median: differences[differences.length >> 1]!, largest: differences.at(-1)!, parted };
}

const scratch = mkdtempSync(path.join(os.tmpdir(), 'farthing-gguf-'));
let failed = false;
for (const folder of folders) {
  const model = await loadModel(folder, { compute: 'f32', sequences: 1 });
  const prompt = model.tokenizer
    ? model.encode({ prompt: 'Once upon a time, a fox met a crow in the forest.' })
    : Array.from({ length: 40 }, (_, i) => (i * 37 + 5) % model.config.vocabSize);
  const ours = await answerOf(model, prompt);
  await model.close();
  for (const precision of ['f32', 'bf16'] as const) {
    const title = `${path.basename(folder).padEnd(16)}${precision.padEnd(6)}`;
    const file = path.join(scratch, `${path.basename(folder)}.gguf`);
    try {
      await exportGguf(folder, file, precision);
      const { median, largest, parted } = compare(ours, peerAnswer(file, prompt, precision === 'f32' ? 'F32' : 'F16'));
      failed ||= precision === 'f32' && (parted >= 0 || !(largest < ROUNDING));
      const text = parted < 0 ? `the same ${COUNT} tokens` : `part after ${parted} tokens`;
      const nats = `${median.toExponential(1)} (median), ${largest.toExponential(1)} (largest)`;
      console.log(`${title}log-probabilities differ by ${nats}; ${text}`);
    } catch (error) {
      failed = true;
      console.log(`${title}failed: ${(error as Error).message.trim().split('\n')[0]}`);
    }
  }
}
rmSync(scratch, { recursive: true });
process.exitCode = failed ? 1 : 0;
