/**
 * Drafts the next tokens of sequences with the MTP module, which is reused for every token after the first
 * (DeepSeek-V3 report §2.2). It runs in the same native call as the step that it continues, so what the sampler will draw
 * from that step is guessed, too. All of it is a guess: the sampler and the main model's next step decide.
 */
import { compile, type PreparedRun } from '../backend/compile.ts';
import { createGraph, own, rowsOf, shared, type Tensor } from '../backend/graph.ts';
import { drawTokens, followGuesses, type Paging } from '../backend/ops.ts';
import type { DeepSeekConfig } from './config.ts';
import { deepseekMtp } from './deepseek.ts';
import { frequencyTable, head } from './forward.ts';
import type { Model } from './load.ts';
import type { RunnerLimits, SequenceChunk } from './runner.ts';

/** How the sampler will choose, so that a guess is likely to be its choice. */
export interface Draw {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  /** The random numbers of the positions from the first that is drawn on: for the step's logits, then for the drafts. */
  readonly uniforms: ArrayLike<number>;
}

export interface Drafter {
  /**
   * What the last step drafted for each chunk that draws, in order of the chunks.
   * @param drawn of each, what the sampler drew from its logits; where that was guessed wrong, nothing is drafted
   */
  drafts(drawn: readonly (readonly number[])[]): number[][];
}

/** What the step leaves for the module. */
export interface StepMemory {
  /** i32 [tokens, 1]. */
  readonly ids: Int32Array;
  readonly slots: Int32Array;
  readonly positions: Int32Array;
  /** i32 [logits, 1]: the guess of each row of logits. */
  readonly guesses: Int32Array;
  /** f32 [tokens, hidden], after the final norm. */
  readonly hidden: Float32Array;
}

type Limits = RunnerLimits & { readonly drafts: number };
type Caches = readonly (readonly Tensor[])[];

/**
 * @param caches of each layer, the module's last; it has a block more for each sequence
 * @returns the drafter, and `enter`, which prepares it to run right after a step of the chunks
 */
export async function createDrafter(
  model: Model,
  config: DeepSeekConfig,
  limits: Limits,
  caches: Caches,
  step: StepMemory,
): Promise<Drafter & { enter(chunks: readonly SequenceChunk[], depth: number): PreparedRun }> {
  if (limits.drafts > limits.blockTokens) {
    throw new RangeError(`drafts of ${limits.drafts} tokens, more than a cache block of ${limits.blockTokens} holds`);
  }
  const programs = await Promise.all(
    Array.from({ length: limits.drafts + 1 }, (_, depth) => draftProgram(model, config, limits, caches, step, depth)),
  );
  let last = { ...programs[0]!, drawing: 0 };

  return {
    enter(chunks, depth) {
      const { program, nextIdRows, sequenceRows, blockTableRows, spanRows, drawRows, drawCols } = programs[depth]!;
      let token = 0;
      let logit = 0;
      let drawing = 0;
      chunks.forEach(({ ids, start, blocks, logits, next, draw }, sequence) => {
        const table = sequence * (limits.blocksPerSequence + 1);
        blockTableRows.set(blocks, table);
        blockTableRows[table + blocks.length] = limits.blocks + sequence;
        for (let i = 1; i < ids.length; i++) nextIdRows[token + i - 1] = ids[i]!;
        token += ids.length;
        nextIdRows[token - 1] = next ?? 0;
        if (draw) {
          sequenceRows[drawing] = sequence;
          spanRows.set([token - logits, logits - 1, logit, start + ids.length - logits, sequence], drawing * 5);
          drawRows.set([draw.temperature, draw.topP, draw.topK], drawing * drawCols);
          drawRows.set(draw.uniforms, drawing * drawCols + 3);
          drawing++;
        }
        logit += logits;
      });
      last = { ...programs[depth]!, drawing };
      return program.prepare({ token, logit: depth > 0 ? drawing : 0, sequence: drawing });
    },
    drafts(drawn) {
      const { drawing, drafted, spanRows, indexRows } = last;
      return Array.from({ length: drawing }, (_, row) => {
        const [first, , guess] = spanRows.subarray(row * 5) as unknown as [number, number, number];
        const right = drawn[row]!.length === indexRows[row]! - first + 1;
        const guessed = right && drawn[row]!.every((token, i) => token === step.guesses[guess + i]);
        return guessed ? drafted.map((ids) => ids[row]!) : [];
      });
    },
  };
}

/** The module over the step's tokens and, for `depth` tokens one after the other, over what it drafted itself. */
async function draftProgram(
  model: Model,
  config: DeepSeekConfig,
  limits: Limits,
  caches: Caches,
  step: StepMemory,
  depth: number,
) {
  const { weights, rope, compute } = model;
  const graph = createGraph(compute);
  const rows = (cols = 1, dtype: 'i32' | 'f32' = 'i32') => own(rowsOf('logit'), cols, dtype);
  const ofStep = (array: Int32Array) => shared(rowsOf('token'), 1, 'i32', array);
  const sequences = rows();
  const blockTable = own(rowsOf('sequence'), limits.blocksPerSequence + 1, 'i32');
  const paging = (slots: Tensor, positions: Tensor): Paging => {
    return { slots, positions, sequences, blockTable, blockTokens: limits.blockTokens };
  };
  const frequencies = frequencyTable(rope);
  const module = (place: Paging, ids: Tensor) => {
    const attention = { kind: 'paged', paging: place, caches } as const;
    const inputs = { ids, positions: place.positions, frequencies, attention };
    return { graph, config, rope, weights, inputs };
  };

  const main = paging(ofStep(step.slots), ofStep(step.positions));
  const hidden = shared(rowsOf('token'), config.hiddenSize, 'f32', step.hidden);
  const start = {
    nextIds: own(rowsOf('token'), 1, 'i32'),
    index: rows(),
    positions: rows(),
    settings: Array.from({ length: depth }, () => rows(4, 'f32')),
    deeper: Array.from({ length: Math.max(0, depth - 1) }, () => ({ positions: rows(), slots: rows() })),
  };
  const drawCols = 3 + 1 + limits.drafts + depth;
  const spans = own(rowsOf('sequence'), 5, 'i32');
  const draws = own(rowsOf('sequence'), drawCols, 'f32');
  const guesses = shared(rowsOf(null, limits.logits), 1, 'i32', step.guesses);
  followGuesses(graph, start, { ids: ofStep(step.ids), guesses, spans, draws }, main);

  const picked = { index: start.index, paging: { ...main, positions: start.positions } };
  let state = deepseekMtp(module(main, start.nextIds), 0, hidden, start.nextIds, picked).hidden;
  const drafted: Tensor[] = [];
  for (let i = 0; i < depth; i++) {
    if (i > 0) {
      const { slots, positions } = start.deeper[i - 1]!;
      state = deepseekMtp(module(paging(slots, positions), drafted[i - 1]!), 0, state, drafted[i - 1]!).hidden;
    }
    drafted.push(drawTokens(graph, head(graph, weights, state), start.settings[i]!));
  }
  await weights.ready();
  const greatest = { token: limits.tokens, logit: limits.sequences, sequence: limits.sequences };
  const program = compile(graph, greatest, drafted);
  return {
    program,
    drawCols,
    nextIdRows: program.i32(start.nextIds),
    blockTableRows: program.i32(blockTable),
    sequenceRows: program.i32(sequences),
    spanRows: program.i32(spans),
    drawRows: program.f32(draws),
    indexRows: program.i32(start.index),
    drafted: drafted.map((tensor) => program.i32(tensor)),
  };
}
