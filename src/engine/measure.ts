/** How fast a model reads prompts and writes tokens here: steps of the model itself, without sampling. */
import type { Model } from '../model/load.ts';
import { createRunner, type Runner, type SequenceChunk } from '../model/runner.ts';
import { STEP_TOKENS } from './cache-size.ts';
import { type DiskShare, measureDisk } from './disk-share.ts';
import { argmax } from './sampler.ts';

export interface Workload {
  /** Tokens of the prompt that is read. */
  readonly prompt: number;
  /** Tokens that each of `batch` sequences writes after a context of `depth` tokens. */
  readonly decode: number;
  readonly depth: number;
  readonly batch: number;
  /** Times each is measured, after one that is not counted. */
  readonly repeat: number;
}

export interface Rate {
  readonly median: number;
  readonly min: number;
  readonly max: number;
}

export interface Measurement {
  /** Reading and packing the weights. */
  readonly load: DiskShare;
  /** All steps that were measured. */
  readonly steps: DiskShare;
  readonly prefill: {
    readonly tokens: number;
    readonly tokensPerSecond: Rate;
    /** Of products and attention, in the mean over the prompt. */
    readonly flopsPerToken: number;
  };
  /** All sequences together. */
  readonly decode: {
    readonly tokens: number;
    readonly depth: number;
    readonly batch: number;
    readonly tokensPerSecond: Rate;
  };
}

const BLOCK_TOKENS = 64;

/** @throws RangeError when prompt or depth + decode exceed the model's context */
export async function measure(model: Model, workload: Workload): Promise<Measurement> {
  const { prompt, decode, depth, batch, repeat } = workload;
  const loading = measureDisk();
  const runner = await benchRunner(model, workload);
  const load = loading();
  const ids = promptIds(model, workload);
  const prefills: number[] = [];
  const decodes: number[] = [];
  if (decode > 0) await fillCaches(runner, ids.subarray(0, depth), batch);
  const stepping = measureDisk();
  for (let round = 0; round <= repeat; round++) {
    if (prompt > 0) prefills.push(prompt / (await seconds(() => read(runner, ids.subarray(0, prompt), 0))));
    if (decode === 0) continue;
    decodes.push((decode * batch) / (await seconds(() => write(runner, model.config.vocabSize, workload))));
  }
  return {
    load,
    steps: stepping(),
    prefill: {
      tokens: prompt,
      tokensPerSecond: rate(prefills.slice(1)),
      flopsPerToken: prompt > 0 ? Math.round((await flopsOf(runner, ids.subarray(0, prompt))) / prompt) : 0,
    },
    decode: { tokens: decode, depth, batch, tokensPerSecond: rate(decodes.slice(1)) },
  };
}

/** A runner with a cache that holds the workload. @throws RangeError as `measure` */
export async function benchRunner(model: Model, workload: Workload): Promise<Runner> {
  const { batch } = workload;
  const longest = longestOf(workload);
  const { maxPositionEmbeddings: context } = model.config;
  if (longest > context) throw new RangeError(`${longest} tokens are more than the model's context of ${context}`);
  const blocksPerSequence = Math.ceil(longest / BLOCK_TOKENS);
  return await createRunner(model, {
    tokens: Math.max(STEP_TOKENS, batch),
    logits: batch,
    sequences: batch,
    blocks: blocksPerSequence * batch,
    blockTokens: BLOCK_TOKENS,
    blocksPerSequence,
  });
}

const longestOf = ({ prompt, depth, decode }: Workload) => Math.max(prompt, depth + decode);

/** Tokens that wake other experts each time. */
export function promptIds({ config }: Model, workload: Workload): Int32Array {
  return Int32Array.from({ length: longestOf(workload) }, (_, i) => (i * 7919 + 13) % config.vocabSize);
}

async function seconds(run: () => Promise<void>): Promise<number> {
  const start = performance.now();
  await run();
  return (performance.now() - start) / 1000;
}

/** Passes `ids` through the model as the beginning of sequence number `sequence`. */
export async function read(runner: Runner, ids: Int32Array, sequence: number): Promise<void> {
  for (const chunk of stepsOf(runner, ids, sequence)) await runner.step([chunk]);
}

/** Floating-point operations of that. */
async function flopsOf(runner: Runner, ids: Int32Array): Promise<number> {
  let total = 0;
  for (const chunk of stepsOf(runner, ids, 0)) for (const { flops } of await runner.profile([chunk])) total += flops;
  return total;
}

function* stepsOf(runner: Runner, ids: Int32Array, sequence: number): Generator<SequenceChunk> {
  const { tokens } = runner.limits;
  for (let start = 0; start < ids.length; start += tokens) {
    const piece = ids.subarray(start, start + tokens);
    const last = start + piece.length === ids.length;
    yield { ids: piece, start, blocks: blocksOf(runner, sequence), logits: last ? 1 : 0 };
  }
}

/**
 * Gives each of `batch` sequences a context of `ids`. Every piece is read as the beginning of a text: its rows are
 * attended to as fast as true ones, and reading it does not slow down with the depth.
 */
export async function fillCaches(runner: Runner, ids: Int32Array, batch: number): Promise<void> {
  for (let sequence = 0; sequence < batch; sequence++) {
    for (let start = 0; start < ids.length; start += STEP_TOKENS) {
      const blocks = blocksOf(runner, sequence).slice(start / BLOCK_TOKENS);
      await runner.step([{ ids: ids.subarray(start, start + STEP_TOKENS), start: 0, blocks, logits: 0 }]);
    }
  }
}

/** A token of each sequence, unlike those of the others, so that they wake other experts. */
export function firstIds(batch: number, vocab: number): number[] {
  return Array.from({ length: batch }, (_, sequence) => (sequence * 7919 + 1) % vocab);
}

/** Writes the most probable tokens of all sequences, one of each a step. */
async function write(runner: Runner, vocab: number, { decode, depth, batch }: Workload): Promise<void> {
  let next = firstIds(batch, vocab);
  for (let i = 0; i < decode; i++) {
    const chunks = next.map((id, sequence): SequenceChunk => {
      return { ids: [id], start: depth + i, blocks: blocksOf(runner, sequence), logits: 1 };
    });
    const logits = await runner.step(chunks);
    next = next.map((_, row) => argmax(logits.subarray(row * vocab, (row + 1) * vocab)));
  }
}

export function blocksOf({ limits }: Runner, sequence: number): number[] {
  return Array.from({ length: limits.blocksPerSequence }, (_, i) => sequence * limits.blocksPerSequence + i);
}

function rate(values: readonly number[]): Rate {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  return { median: at(0.5), min: at(0), max: at(1) };
}
