/** How fast a model reads prompts and writes tokens here: steps of the model itself, without sampling. */
import type { Model } from '../model/load.ts';
import { createRunner, type Runner, type SequenceChunk } from '../model/runner.ts';
import { STEP_TOKENS } from './cache-size.ts';
import { type DiskShare, measureDisk } from './disk-share.ts';
import { uniform } from './random.ts';

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
  if (decode > 0) await fillCaches(runner, model.config.vocabSize, workload);
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

/** Token at a place of a sequence, at random, so that neither tokens nor sequences wake the same experts. */
export function benchToken(sequence: number, position: number, vocab: number): number {
  return Math.floor(uniform(sequence, position) * vocab);
}

/** Of the first sequence. */
export function promptIds({ config }: Model, workload: Workload): Int32Array {
  return Int32Array.from({ length: longestOf(workload) }, (_, i) => benchToken(0, i, config.vocabSize));
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

/** Tokens of all sequences together that `fillCaches` reads. */
const READ_TOKENS = 16384;

/**
 * Gives each of `batch` sequences a context of its own of `depth` tokens. Every piece is read as the beginning of a text:
 * its rows are attended to as fast as true ones, and reading it does not slow down with the depth. Beyond READ_TOKENS,
 * blocks are copies of some that were read, picked at random.
 */
export async function fillCaches(
  runner: Runner,
  vocab: number,
  { depth, batch }: Pick<Workload, 'depth' | 'batch'>,
): Promise<void> {
  const filled: number[] = [];
  const content = new Uint8Array(runner.blocks.bytes);
  for (let sequence = 0; sequence < batch; sequence++) {
    for (let start = 0; start < depth; start += STEP_TOKENS) {
      const length = Math.min(STEP_TOKENS, depth - start);
      const blocks = blocksOf(runner, sequence).slice(start / BLOCK_TOKENS, Math.ceil((start + length) / BLOCK_TOKENS));
      if (filled.length * BLOCK_TOKENS < READ_TOKENS) {
        const ids = Int32Array.from({ length }, (_, i) => benchToken(sequence, start + i, vocab));
        await runner.step([{ ids, start: 0, blocks, logits: 0 }]);
        filled.push(...blocks);
        continue;
      }
      for (const block of blocks) {
        runner.blocks.read(filled[Math.floor(uniform(sequence, block) * filled.length)]!, content);
        runner.blocks.write(block, content);
      }
    }
  }
}

/** Writes a token of each sequence in every step. */
export async function write(
  runner: Runner,
  vocab: number,
  { decode, depth, batch }: Omit<Workload, 'prompt' | 'repeat'>,
): Promise<void> {
  for (let i = 0; i < decode; i++) await runner.step(decodeChunks(runner, vocab, depth + i, batch));
}

/** A token of each of `batch` sequences after `start` others. */
export function decodeChunks(runner: Runner, vocab: number, start: number, batch: number): SequenceChunk[] {
  return Array.from({ length: batch }, (_, sequence) => {
    return { ids: [benchToken(sequence, start, vocab)], start, blocks: blocksOf(runner, sequence), logits: 1 };
  });
}

export function blocksOf({ limits }: Runner, sequence: number): number[] {
  return Array.from({ length: limits.blocksPerSequence }, (_, i) => sequence * limits.blocksPerSequence + i);
}

function rate(values: readonly number[]): Rate {
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.round(share * (sorted.length - 1))] ?? 0;
  return { median: at(0.5), min: at(0), max: at(1) };
}
