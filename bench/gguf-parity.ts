/**
 * Whether an exported GGUF file writes the same in llama.cpp: `npx tsx bench/gguf-parity.ts [DIR …]`, the built-in model
 * and the tiny models of the tests unless folders are given. Both continue one prompt greedily, from BF16 weights. Where
 * they part, the gap between our two best logits says whether it was a toss-up: llama.cpp keeps its cache in F16, ours
 * is F32 here. Needs the peer: `npm ci --prefix bench`. Exits with 1 where they part at a gap above 0.05.
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { here } from '../models/builtin-data.ts';
import { loadModel } from '../src/index.ts';
import { exportGguf } from '../src/model/gguf-export.ts';

const COUNT = 32;
const TOSS_UP = 0.05;

const golden = (name: string) => `test/fixtures/golden/${name}`;
const folders =
  process.argv.length > 2
    ? process.argv.slice(2)
    : [
        path.join(here, 'farthing-tiny'),
        ...['qwen2-tiny', 'qwen3-tiny', 'llama-tiny', 'v2lite-tiny', 'v3-tiny'].map(golden),
      ];

const scratch = mkdtempSync(path.join(os.tmpdir(), 'farthing-gguf-'));
let parted = false;
for (const folder of folders) {
  const file = path.join(scratch, `${path.basename(folder)}.gguf`);
  const model = await loadModel(folder, { compute: 'f32', sequences: 1 });
  const prompt = model.tokenizer
    ? model.encode({ prompt: 'Once upon a time, a fox met a crow in the forest.' })
    : Array.from({ length: 12 }, (_, i) => (i * 37 + 5) % model.config.vocabSize);
  const ours: number[] = [];
  const gaps: number[] = [];
  for (let i = 0; i < COUNT; i++) {
    const logits = (await model.logits([...prompt, ...ours])).slice(-model.config.vocabSize);
    const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b)));
    ours.push(best);
    gaps.push(
      logits[best]! - logits.reduce((a, b, id) => (id === best ? a : Math.max(a, b)), Number.NEGATIVE_INFINITY),
    );
  }
  await model.close();
  try {
    await exportGguf(folder, file, 'bf16');
    const request = JSON.stringify({ ids: prompt, count: COUNT });
    const peer: number[] = JSON.parse(
      execFileSync('node', ['bench/llama-greedy.mjs', file, request], {
        encoding: 'utf8',
        timeout: 120_000,
        env: { ...process.env, UV_THREADPOOL_SIZE: '1' },
      }),
    );
    const at = ours.findIndex((id, i) => id !== peer[i]);
    if (at >= 0 && gaps[at]! > TOSS_UP) parted = true;
    const found =
      at < 0
        ? `the same ${COUNT} tokens`
        : `part after ${at} tokens, where our two best logits are ${gaps[at]!.toFixed(3)} apart`;
    console.log(`${path.basename(folder).padEnd(16)}${found}`);
  } catch (error) {
    parted = true;
    console.log(`${path.basename(folder).padEnd(16)}failed: ${(error as Error).message.trim().split('\n')[0]}`);
  }
}
rmSync(scratch, { recursive: true });
process.exitCode = parted ? 1 : 0;
