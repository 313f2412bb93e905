import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { compile } from '../../src/backend/compile.ts';
import { createGraph, own, rowsOf, type Tensor } from '../../src/backend/graph.ts';
import { deepseekMtp } from '../../src/model/deepseek.ts';
import { forward, frequencyTable, head } from '../../src/model/forward.ts';
import { type Model, openModel } from '../../src/model/load.ts';
import { createRunner } from '../../src/model/runner.ts';
import { parseSafetensors } from '../../src/numerics/safetensors.ts';
import { relativeError } from '../backend/run-op.ts';

/** Outputs of transformers in float32; see test/fixtures/golden/README.md for how they were made. */
const CASES = ['v3-tiny', 'v3-tiny-fp8', 'v2lite-tiny', 'v3-tiny-mtp', 'qwen2-tiny', 'llama-tiny', 'qwen3-tiny'];

interface Golden {
  num_layers: number;
  mtp_layer: number | null;
  tolerance: Record<string, number>;
  prompts: { index: number; input_ids: number[]; greedy_tokens: number[]; mtp_draft_tokens?: number[] }[];
}

const folderOf = (name: string) => `test/fixtures/golden/${name}`;
const golden = (name: string) => JSON.parse(readFileSync(`${folderOf(name)}/golden.json`, 'utf8')) as Golden;

function goldenTensors(name: string) {
  const file = readFileSync(`${folderOf(name)}/golden.safetensors`);
  const buffer = file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength) as ArrayBuffer;
  const { tensors } = parseSafetensors(buffer, 'golden.safetensors');
  return (key: string) => {
    const bytes = tensors.get(key)!.bytes.slice().buffer;
    return tensors.get(key)!.dtype === 'I32' ? new Int32Array(bytes) : new Float32Array(bytes);
  };
}

const BLOCK_TOKENS = 16;
const BLOCKS = 16;
const blocks = Array.from({ length: BLOCKS }, (_, b) => BLOCKS - 1 - b);

const runnerOf = (model: Model) =>
  createRunner(model, {
    tokens: 96,
    logits: 96,
    sequences: 2,
    blocks: BLOCKS,
    blockTokens: BLOCK_TOKENS,
    blocksPerSequence: BLOCKS,
  });

const argmax = (row: ArrayLike<number>) => {
  let best = 0;
  for (let i = 1; i < row.length; i++) if (row[i]! > row[best]!) best = i;
  return best;
};

/** The whole prompt without a cache, as in training, every inner value kept. */
async function causalPass(model: Model, ids: readonly number[], nextIds?: readonly number[]) {
  const graph = createGraph('f32');
  const row = () => own(rowsOf('token'), 1, 'i32');
  const [idRow, positions, starts, nextRow] = [row(), row(), row(), row()];
  const inputs = {
    ids: idRow,
    positions,
    frequencies: frequencyTable(model.rope),
    attention: { kind: 'causal', starts },
  } as const;
  const { config, weights, rope } = model;
  const main = forward(graph, config, rope, weights, inputs);
  const mtp =
    nextIds && config.family === 'deepseek'
      ? deepseekMtp({ graph, config, rope, weights, inputs }, 0, main.hidden, nextRow)
      : null;
  const logits = head(graph, weights, main.hidden);
  const mtpLogits = mtp && head(graph, weights, mtp.hidden);
  await weights.ready();
  const routes = [...main.routes, ...(mtp?.routes ?? [])];
  const keep: Tensor[] = [logits, ...(mtpLogits ? [mtpLogits] : []), main.hidden, nextRow];
  for (const route of routes) keep.push(route.experts, route.weights, route.logits);
  const program = compile(graph, { token: ids.length, logit: 0, sequence: 0 }, keep);
  program.i32(idRow).set(ids);
  program.i32(positions).set(ids.map((_, i) => i));
  if (nextIds) program.i32(nextRow).set(nextIds);
  await program.run({});
  return { program, logits, mtpLogits, hidden: main.hidden, routes: main.routes, mtpRoutes: mtp?.routes ?? [] };
}

describe.each(CASES)('%s', (name) => {
  const { prompts } = golden(name);
  const tensor = goldenTensors(name);
  const opened = openModel(folderOf(name), { compute: 'f32' });

  test.each(prompts)(
    'prompt $index: logits and greedy continuation over the paged cache',
    async ({ index, input_ids, greedy_tokens }) => {
      const runner = await runnerOf(await opened);
      const logits = await runner.step([{ ids: input_ids, start: 0, blocks, logits: input_ids.length }]);
      const expected = tensor(`p${index}.logits`);
      expect(logits.length).toBe(expected.length);
      expect(relativeError(logits, expected)).toBeLessThan(1e-4);
      let worst = 0;
      for (let i = 0; i < logits.length; i++) worst = Math.max(worst, Math.abs(logits[i]! - expected[i]!));
      expect(worst).toBeLessThan(2e-3);

      const vocab = (await opened).config.vocabSize;
      const greedy = tensor(`p${index}.greedy.logits`);
      const tokens: number[] = [];
      let last = logits.slice(-vocab);
      for (let j = 0; j < greedy_tokens.length; j++) {
        expect(relativeError(last, greedy.subarray(j * vocab, (j + 1) * vocab))).toBeLessThan(1e-4);
        tokens.push(argmax(last));
        last = (await runner.step([{ ids: tokens.slice(-1), start: input_ids.length + j, blocks, logits: 1 }])).slice();
      }
      expect(tokens).toEqual(greedy_tokens);
    },
  );

  test.each(prompts)(
    'prompt $index: without a cache, the same logits, hidden states, experts and weights',
    async ({ index, input_ids }) => {
      const pass = await causalPass(await opened, input_ids);
      expect(relativeError(pass.program.f32(pass.logits), tensor(`p${index}.logits`))).toBeLessThan(1e-4);
      expect(relativeError(pass.program.f32(pass.hidden), tensor(`p${index}.hidden.final_norm`))).toBeLessThan(1e-4);
      for (const route of pass.routes) {
        const key = `p${index}.router.layer${route.layer}`;
        expect(relativeError(pass.program.f32(route.logits), tensor(`${key}.logits`))).toBeLessThan(1e-4);
        const chosen = pass.program.i32(route.experts);
        const weights = pass.program.f32(route.weights);
        const topK = route.experts.cols;
        for (let t = 0; t < input_ids.length; t++) {
          const slots = Array.from({ length: topK }, (_, k) => ({
            expert: chosen[t * topK + k]!,
            weight: weights[t * topK + k]!,
          }));
          slots.sort((a, b) => a.expert - b.expert);
          expect(slots.map((s) => s.expert)).toEqual([...tensor(`${key}.topk_idx`).subarray(t * topK, (t + 1) * topK)]);
          const expected = tensor(`${key}.topk_weight`).subarray(t * topK, (t + 1) * topK);
          slots.forEach((s, k) => void expect(Math.abs(s.weight - expected[k]!)).toBeLessThan(5e-4));
        }
      }
    },
  );
});

describe('multi-token prediction', () => {
  const { prompts } = golden('v3-tiny-mtp');
  const tensor = goldenTensors('v3-tiny-mtp');
  const opened = openModel(folderOf('v3-tiny-mtp'), { compute: 'f32' });

  test.each(prompts)(
    'prompt $index: logits, experts and drafts of the MTP module',
    async ({ index, input_ids, greedy_tokens, mtp_draft_tokens }) => {
      const model = await opened;
      const sequence = [...input_ids, ...greedy_tokens];
      const rows = sequence.length - 1;
      const pass = await causalPass(model, sequence.slice(0, rows), sequence.slice(1));
      const logits = pass.program.f32(pass.mtpLogits!);
      expect(relativeError(logits, tensor(`p${index}.mtp.logits`))).toBeLessThan(1e-4);
      const vocab = model.config.vocabSize;
      const drafts = Array.from({ length: 16 }, (_, j) => {
        const row = input_ids.length - 1 + j;
        return argmax(logits.subarray(row * vocab, (row + 1) * vocab));
      });
      expect(drafts).toEqual(mtp_draft_tokens);
      const [route] = pass.mtpRoutes;
      const chosen = pass.program.i32(route!.experts);
      const topK = route!.experts.cols;
      const sorted = Int32Array.from({ length: rows * topK });
      for (let t = 0; t < rows; t++) sorted.set(chosen.slice(t * topK, (t + 1) * topK).sort(), t * topK);
      expect([...sorted]).toEqual([...tensor(`p${index}.mtp.router.topk_idx`)]);
    },
  );

  test.each(prompts)(
    'prompt $index: the same drafts over the paged cache, in chunks, while the main model writes',
    async ({ input_ids, greedy_tokens, mtp_draft_tokens }) => {
      const limits = { tokens: 96, logits: 2, sequences: 1, blocks: BLOCKS, blockTokens: BLOCK_TOKENS, drafts: 1 };
      const runner = await createRunner(await opened, { ...limits, blocksPerSequence: BLOCKS });
      const sequence = [...input_ids, ...greedy_tokens];
      const greedy = { temperature: 0, topP: 1, topK: 0, uniforms: [] };
      const pass = async (start: number, end: number) => {
        await runner.step([{ ids: sequence.slice(start, end), start, blocks, logits: 1, draw: greedy }], 1);
        return runner.drafter!.drafts([[sequence[end]!]]);
      };
      const [third, prompt] = [Math.ceil(input_ids.length / 3), input_ids.length];
      await runner.step([{ ids: sequence.slice(0, third), start: 0, blocks, logits: 0, next: sequence[third]! }]);
      const drafts = await pass(third, prompt);
      for (let at = prompt; at < sequence.length - 1; at++) drafts.push(...(await pass(at, at + 1)));
      expect(drafts.flat()).toEqual(mtp_draft_tokens);
    },
  );
});
