/**
 * Drafts the next tokens of sequences with the MTP module, which is reused for every token after the first
 * (DeepSeek-V3 report §2.2). What it drafts is a guess: the main model decides in its next step.
 */
import { compile } from '../backend/compile.ts';
import { createGraph, own, rowsOf, type Tensor } from '../backend/graph.ts';
import { drawTokens } from '../backend/ops.ts';
import type { DeepSeekConfig } from './config.ts';
import { deepseekMtp } from './deepseek.ts';
import { frequencyTable, head } from './forward.ts';
import type { Model } from './load.ts';
import type { RunnerLimits } from './runner.ts';

/** Tokens of a sequence that the last step computed, and what follows them. */
export interface DraftChunk {
  /** The first of the chunk's rows in the last step. */
  readonly row: number;
  /** Position of its first token. */
  readonly start: number;
  /** Tokens that stand behind each: those at start + 1, start + 2, … */
  readonly nextIds: ArrayLike<number>;
  /** Cache blocks of the sequence, as in the step. */
  readonly blocks: ArrayLike<number>;
  /** Whether to draft what comes after the last of `nextIds`, and how; null only keeps the module's cache up. */
  readonly draw: Draw | null;
}

/** How the sampler will choose, so that the draft is likely to be its choice. */
export interface Draw {
  readonly temperature: number;
  readonly topP: number;
  readonly topK: number;
  /** The random numbers of the drafted positions. */
  readonly uniforms: ArrayLike<number>;
}

export interface Drafter {
  /**
   * Passes the chunks of the last step through the module. Each of them counts, drafted for or not: the module's
   * attention looks back on all of a sequence's tokens.
   * @returns `depth` tokens for each chunk that draws, in order of the chunks
   */
  draft(chunks: readonly DraftChunk[], depth: number): Promise<number[][]>;
}

type Limits = RunnerLimits & { readonly drafts: number };
type Caches = readonly (readonly Tensor[])[];

/**
 * @param caches of each layer, the module's last; it has a block more for each sequence
 * @param hidden f32 [tokens, hidden], after the final norm, of the last step
 */
export async function createDrafter(
  model: Model,
  config: DeepSeekConfig,
  limits: Limits,
  caches: Caches,
  hidden: Float32Array,
): Promise<Drafter> {
  const programs = await Promise.all(
    Array.from({ length: limits.drafts + 1 }, (_, depth) => draftProgram(model, config, limits, caches, depth)),
  );

  return {
    async draft(chunks, depth) {
      const { program, hiddenRows, nextIdRows, sequenceRows, blockTableRows, main, picked, deeper, settings, drawn } =
        programs[depth]!;
      const { hiddenSize } = config;
      let token = 0;
      let drawing = 0;
      chunks.forEach(({ row, start, nextIds, blocks, draw }, sequence) => {
        const spare = limits.blocks + sequence;
        const place = (position: number) =>
          (blocks[Math.floor(position / limits.blockTokens)] ?? spare) * limits.blockTokens +
          (position % limits.blockTokens);
        const table = sequence * (limits.blocksPerSequence + 1);
        blockTableRows.set(blocks, table);
        blockTableRows[table + blocks.length] = spare;
        hiddenRows.set(hidden.subarray(row * hiddenSize, (row + nextIds.length) * hiddenSize), token * hiddenSize);
        nextIdRows.set(nextIds, token);
        for (let i = 0; i < nextIds.length; i++, token++) {
          main.positions[token] = start + i;
          main.slots[token] = place(start + i);
        }
        if (!draw || depth === 0) return;
        const last = start + nextIds.length - 1;
        picked.index[drawing] = token - 1;
        picked.positions[drawing] = last;
        sequenceRows[drawing] = sequence;
        deeper.forEach(({ positions, slots }, i) => {
          positions[drawing] = last + 1 + i;
          slots[drawing] = place(last + 1 + i);
        });
        settings.forEach((rows, i) => {
          rows.set([draw.temperature, draw.topP, draw.topK, draw.uniforms[i]!], drawing * 4);
        });
        drawing++;
      });
      await program.run({ token, logit: drawing, sequence: chunks.length });
      return Array.from({ length: drawing }, (_, row) => drawn.map((ids) => ids[row]!));
    },
  };
}

/** The module over the step's tokens and, for `depth` tokens one after the other, over what it drafted itself. */
async function draftProgram(model: Model, config: DeepSeekConfig, limits: Limits, caches: Caches, depth: number) {
  const { weights, rope, compute } = model;
  const graph = createGraph(compute);
  const rows = (axis: 'token' | 'logit', cols = 1, dtype: 'i32' | 'f32' = 'i32') => own(rowsOf(axis), cols, dtype);
  const sequences = rows('logit');
  const blockTable = own(rowsOf('sequence'), limits.blocksPerSequence + 1, 'i32');
  const paging = (axis: 'token' | 'logit') => ({
    slots: rows(axis),
    positions: rows(axis),
    sequences,
    blockTable,
    blockTokens: limits.blockTokens,
  });
  const frequencies = frequencyTable(rope);
  const module = (place: ReturnType<typeof paging>, ids: Tensor) => {
    const attention = { kind: 'paged', paging: place, caches } as const;
    const inputs = { ids, positions: place.positions, frequencies, attention };
    return { graph, config, rope, weights, inputs };
  };

  const main = paging('token');
  const hidden = own(rowsOf('token'), config.hiddenSize);
  const nextIds = rows('token');
  const picked = { index: rows('logit'), paging: paging('logit') };
  const deeper = Array.from({ length: Math.max(0, depth - 1) }, () => paging('logit'));
  const settings = Array.from({ length: depth }, () => rows('logit', 4, 'f32'));

  let state = deepseekMtp(module(main, nextIds), 0, hidden, nextIds, picked).hidden;
  const drawn: Tensor[] = [];
  for (let i = 0; i < depth; i++) {
    if (i > 0) state = deepseekMtp(module(deeper[i - 1]!, drawn[i - 1]!), 0, state, drawn[i - 1]!).hidden;
    drawn.push(drawTokens(graph, head(graph, weights, state), settings[i]!));
  }
  await weights.ready();
  const greatest = { token: limits.tokens, logit: depth === 0 ? 0 : limits.sequences, sequence: limits.sequences };
  const program = compile(graph, greatest, drawn);
  const i32 = (tensor: Tensor) => program.i32(tensor);
  return {
    program,
    hiddenRows: program.f32(hidden),
    nextIdRows: i32(nextIds),
    blockTableRows: i32(blockTable),
    sequenceRows: i32(sequences),
    main: { slots: i32(main.slots), positions: i32(main.positions) },
    picked: { index: i32(picked.index), positions: i32(picked.paging.positions) },
    deeper: deeper.map(({ slots, positions }) => ({ slots: i32(slots), positions: i32(positions) })),
    settings: settings.map((tensor) => program.f32(tensor)),
    drawn: drawn.map(i32),
  };
}
