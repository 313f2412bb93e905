/** One step of a loaded model over a paged cache: token ids in, logits out. */
import { compile, type OpTimes, runInTurn } from '../backend/compile.ts';
import { type CacheDType, createGraph, own, resident, rowsOf, storageBytes, type Tensor } from '../backend/graph.ts';
import { graphDigest } from '../backend/graph-digest.ts';
import { allocate } from '../backend/native.ts';
import { type OpWork, opWork } from '../backend/op-work.ts';
import { drawTokens, selectRows } from '../backend/ops.ts';
import { type CacheBlocks, cacheBlocks } from './cache-blocks.ts';
import type { ModelConfig } from './config.ts';
import { createDrafter, type Drafter, type Draw } from './drafter.ts';
import { cacheCols, forward, frequencyTable, hasMtp, head } from './forward.ts';
import type { Model } from './load.ts';

export interface RunnerLimits {
  /** Most tokens, rows of logits and sequences in one step. */
  readonly tokens: number;
  readonly logits: number;
  readonly sequences: number;
  /** Blocks of the cache and tokens in a block; most blocks of one sequence. */
  readonly blocks: number;
  readonly blockTokens: number;
  readonly blocksPerSequence: number;
  /** Most tokens drafted for a sequence in one step; needs an MTP module. Default 0. */
  readonly drafts?: number;
}

/** A piece of one sequence that takes part in a step: a chunk of its prompt, or one decoded token. */
export interface SequenceChunk {
  /** Token ids that enter at positions start, start + 1, … */
  readonly ids: ArrayLike<number>;
  readonly start: number;
  /** Cache blocks of the sequence in order; they cover positions 0 .. start + ids.length − 1. */
  readonly blocks: ArrayLike<number>;
  /** Of this chunk's tokens, how many at its end need logits (0 in the middle of a prefill, 1 to sample). */
  readonly logits: number;
  /** What the drafter needs to know: the token behind the chunk, or how it and those after it will be drawn. */
  readonly next?: number | undefined;
  readonly draw?: Draw | undefined;
}

export interface Runner {
  readonly limits: RunnerLimits;
  readonly cacheDtype: CacheDType;
  readonly blocks: CacheBlocks;
  /** Digest of the computation: kernels, shapes and numbers. Equal ones do the same with equal weights. */
  readonly recipe: string;
  /**
   * Runs the chunks together, and drafts `depth` tokens for each that has a `draw`. @returns logits f32 [Σ chunk.logits, vocab] in order of the chunks; the memory is
   * overwritten by the next step.
   */
  step(chunks: readonly SequenceChunk[], depth?: number): Promise<Float32Array>;
  /** null where the model has no MTP module or nothing is to be drafted. */
  readonly drafter: Drafter | null;
  /** By layer with experts: the tokens that each of them was given in all steps so far. */
  readonly expertLoads: Readonly<Record<string, readonly number[]>>;
  /** As `step`. @returns what each operation did and when each thread worked on it, in order */
  profile(chunks: readonly SequenceChunk[]): Promise<ProfiledOp[]>;
}

export interface ProfiledOp extends OpWork {
  readonly kernel: string;
  readonly times: OpTimes;
}

/**
 * Prepares the step of `model` once for all step sizes up to `limits` and gives it a cache.
 */
export async function createRunner(model: Model, limits: RunnerLimits): Promise<Runner> {
  const { config, weights, compute, cacheDtype } = model;
  const graph = createGraph(compute);
  const perToken = () => own(rowsOf('token'), 1, 'i32');
  const drafts = hasMtp(config) ? (limits.drafts ?? 0) : 0;
  const cachesOf = (blocks: number) =>
    cacheCols(config, cacheDtype).map((cols) => {
      const rows = blocks * limits.blockTokens;
      const byteLength = storageBytes(cacheDtype, rows, cols);
      return resident(rows, cols, cacheDtype, { buffer: allocate(byteLength), byteOffset: 0, byteLength });
    });
  const paging = {
    slots: perToken(),
    positions: perToken(),
    sequences: perToken(),
    blockTable: own(rowsOf('sequence'), limits.blocksPerSequence, 'i32'),
    blockTokens: limits.blockTokens,
  };
  const caches = Array.from({ length: config.numHiddenLayers }, () => cachesOf(limits.blocks));
  // The MTP module's layer, with a block for each sequence to draft into before it has the block of its own.
  if (drafts > 0) caches.push(cachesOf(limits.blocks + limits.sequences));
  const ids = perToken();
  const picked = own(rowsOf('logit'), 1, 'i32');
  const inputs = {
    ids,
    positions: paging.positions,
    frequencies: frequencyTable(model.rope),
    attention: { kind: 'paged', paging, caches },
  } as const;
  const { hidden, routes } = forward(graph, config, model.rope, weights, inputs);
  const logits = head(graph, weights, selectRows(graph, hidden, picked));
  const recipe = graphDigest(graph);
  const settings = own(rowsOf('logit'), 4);
  const guesses = drafts > 0 ? drawTokens(graph, logits, settings) : null;
  await weights.ready();
  const greatest = { token: limits.tokens, logit: limits.logits, sequence: limits.sequences };
  const kept = [logits, hidden, ...(guesses ? [guesses] : []), ...routes.map(({ plan }) => plan.offsets)];
  const program = compile(graph, greatest, kept);
  const loads = routes.map(({ layer, plan }) => {
    const offsets = program.i32(plan.offsets);
    return { layer, offsets, tokens: new Array<number>(offsets.length - 1).fill(0) };
  });
  const idRows = program.i32(ids);
  const slotRows = program.i32(paging.slots);
  const positionRows = program.i32(paging.positions);
  const sequenceRows = program.i32(paging.sequences);
  const blockRows = program.i32(paging.blockTable);
  const pickedRows = program.i32(picked);
  const logitRows = program.f32(logits);
  const settingRows = guesses && program.f32(settings);
  const drafter =
    guesses && hasMtp(config)
      ? await createDrafter(model, config, { ...limits, drafts }, caches, {
          ids: idRows,
          slots: slotRows,
          positions: positionRows,
          guesses: program.i32(guesses),
          hidden: program.f32(hidden),
        })
      : null;

  /** Writes the inputs of a step. @returns its lengths */
  function enter(chunks: readonly SequenceChunk[]) {
    let token = 0;
    let logit = 0;
    chunks.forEach((chunk, sequence) => {
      checkChunk(chunk, config, limits);
      if (token + chunk.ids.length > limits.tokens) throw new RangeError(`more than ${limits.tokens} tokens in a step`);
      if (logit + chunk.logits > limits.logits) throw new RangeError(`more than ${limits.logits} logits in a step`);
      if (sequence >= limits.sequences) throw new RangeError(`more than ${limits.sequences} sequences in a step`);
      blockRows.set(chunk.blocks, sequence * limits.blocksPerSequence);
      for (let i = 0; i < chunk.ids.length; i++, token++) {
        const position = chunk.start + i;
        const block = chunk.blocks[Math.floor(position / limits.blockTokens)]!;
        idRows[token] = chunk.ids[i]!;
        positionRows[token] = position;
        sequenceRows[token] = sequence;
        slotRows[token] = block * limits.blockTokens + (position % limits.blockTokens);
      }
      for (let i = 0; i < chunk.logits; i++, logit++) {
        pickedRows[logit] = token - chunk.logits + i;
        const { temperature, topP, topK, uniforms } = chunk.draw ?? GREEDY;
        settingRows?.set([temperature, topP, topK, uniforms[i] ?? 0], logit * 4);
      }
    });
    return { token, logit, sequence: chunks.length };
  }

  return {
    limits,
    cacheDtype,
    drafter,
    expertLoads: Object.fromEntries(loads.map(({ layer, tokens }) => [layer, tokens])),
    blocks: cacheBlocks(caches.flat(), limits.blockTokens),
    recipe,
    async step(chunks, depth = 0) {
      const lengths = enter(chunks);
      const run = program.prepare(lengths);
      await runInTurn(drafter ? [run, drafter.enter(chunks, depth)] : [run]);
      for (const { offsets, tokens } of loads) {
        for (let e = 0; e < tokens.length; e++) tokens[e]! += offsets[e + 1]! - offsets[e]!;
      }
      return logitRows.subarray(0, lengths.logit * config.vocabSize);
    },
    async profile(chunks) {
      const lengths = enter(chunks);
      const times = await program.profile(lengths);
      const spans = chunks.map(({ ids, start }) => ({ start, tokens: ids.length }));
      const rowsPerExpert = (offsets: Tensor) => differences(program.i32(offsets));
      return graph.ops.map((op, i) => {
        return { kernel: op.kernel, times: times[i]!, ...opWork(op, { lengths, spans, rowsPerExpert }) };
      });
    },
  };
}

const GREEDY: Draw = { temperature: 0, topP: 1, topK: 0, uniforms: [] };
const differences = (starts: Int32Array) => starts.subarray(1).map((start, i) => start - starts[i]!);
function checkChunk({ ids, start, blocks, logits }: SequenceChunk, config: ModelConfig, limits: RunnerLimits): void {
  const end = start + ids.length;
  if (
    !Number.isInteger(start) ||
    start < 0 ||
    blocks.length * limits.blockTokens < end ||
    blocks.length > limits.blocksPerSequence
  ) {
    throw new RangeError(`positions ${start} to ${end - 1} in ${blocks.length} blocks of ${limits.blockTokens}`);
  }
  if (logits < 0 || logits > ids.length) throw new RangeError(`logits of ${logits} of ${ids.length} tokens`);
  for (let i = 0; i < blocks.length; i++) {
    const block = blocks[i]!;
    if (!Number.isInteger(block) || block < 0 || block >= limits.blocks) {
      throw new RangeError(`cache block ${block}, expected 0 to ${limits.blocks - 1}`);
    }
  }
  for (let i = 0; i < ids.length; i++) {
    const id = ids[i]!;
    if (!Number.isInteger(id) || id < 0 || id >= config.vocabSize) {
      throw new RangeError(`token id ${id}, expected 0 to ${config.vocabSize - 1}`);
    }
  }
}
