import { expect, test } from 'vitest';
import { own, rowsOf } from '../../src/backend/graph.ts';
import { drawTokens, followGuesses } from '../../src/backend/ops.ts';
import { uniform } from '../../src/engine/random.ts';
import { sample } from '../../src/engine/sampler.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { noise, runOps } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const ROWS = 400;

async function agreement(vocab: number, temperature: number, topP: number, topK: number): Promise<number> {
  const logits = noise(ROWS * vocab, 3).map((x) => Math.fround(6 * x));
  const seed = 11;
  const settings = Array.from({ length: ROWS }, (_, r) => [temperature, topP, topK, uniform(seed, r)]).flat();
  const given = { logits: { cols: vocab, values: logits }, settings: { cols: 4, values: settings } };
  const { ids } = await runOps(given, (graph, t) => ({ ids: drawTokens(graph, t.logits, t.settings) }));
  const right = ids.filter((id, r) => {
    const row = Float32Array.from(logits.slice(r * vocab, (r + 1) * vocab));
    return id === sample(row, { temperature, topP, topK, seed }, r);
  });
  return right.length / ROWS;
}

test.each([5, 64, 1003])('at temperature 0 a draw is the most probable of %i tokens', async (vocab) => {
  expect(await agreement(vocab, 0, 1, 0)).toBe(1);
});

test.each([
  [1, 1, 0, 0.99],
  [0.6, 1, 0, 0.99],
  [0.6, 0.9, 0, 0.99],
  [1, 1, 20, 0.99],
  [0.8, 0.7, 12, 0.99],
])(
  'at temperature %d, top p %d, top k %i a draw is the sampler’s but for roundings',
  async (temperature, topP, topK, least) => {
    expect(await agreement(64, temperature, topP, topK)).toBeGreaterThan(least);
  },
);

test('drafts begin behind the first guess that was not drafted', async () => {
  const [blockTokens, depth] = [4, 3];
  // Of each sequence: its tokens before the step, how many of them enter, its drafts, the guesses, its blocks.
  const sequences = [
    { before: 9, entering: 1, drafts: [5, 6], guesses: [5, 7, 8], blocks: [3, 1, 2, 9], right: 1 },
    { before: 3, entering: 3, drafts: [], guesses: [4], blocks: [6, 8], right: 0 },
    { before: 7, entering: 1, drafts: [1, 2], guesses: [1, 2, 3], blocks: [4, 5, 7], right: 2 },
    { before: 6, entering: 2, drafts: [1, 2], guesses: [2, 2, 3], blocks: [0, 10, 11], right: 0 },
  ];
  let row = 0;
  let guess = 0;
  const spans = sequences.map(({ before, entering, drafts, guesses }, sequence) => {
    const span = [row + entering - 1, drafts.length, guess, before - 1, sequence];
    row += entering + drafts.length;
    guess += guesses.length;
    return span;
  });
  const draws = sequences.map((_, i) => [
    0.5,
    0.9,
    i,
    ...Array.from({ length: 3 + depth }, (_, j) => (8 * i + j) / 64),
  ]);
  const ids = sequences.flatMap(({ entering, drafts }) => [...new Array(entering).fill(99), ...drafts]);
  const column = (values: number[]) => ({ cols: 1, dtype: 'i32' as const, values });
  const rows = (cols: number, dtype: 'i32' | 'f32' = 'i32') => own(rowsOf(null, sequences.length), cols, dtype);
  const found = await runOps(
    {
      ids: column(ids),
      guesses: column(sequences.flatMap(({ guesses }) => guesses)),
      spans: { cols: 5, dtype: 'i32', values: spans.flat() },
      draws: { cols: 3 + 3 + depth, values: draws.flat() },
      blockTable: { cols: 4, dtype: 'i32', values: sequences.flatMap(({ blocks }) => [...blocks, 0, 0].slice(0, 4)) },
    },
    (graph, given) => {
      const nextIds = own(rowsOf(null, ids.length), 1, 'i32');
      const settings = Array.from({ length: depth }, () => rows(4, 'f32'));
      const deeper = Array.from({ length: depth - 1 }, () => ({ positions: rows(1), slots: rows(1) }));
      const start = { nextIds, index: rows(1), positions: rows(1), settings, deeper };
      followGuesses(graph, start, given, { blockTable: given.blockTable, blockTokens });
      return {
        nextIds,
        index: start.index,
        positions: start.positions,
        first: settings[0]!,
        last: settings[2]!,
        place: deeper[1]!.positions,
        slot: deeper[1]!.slots,
      };
    },
  );
  sequences.forEach(({ before, guesses, blocks, right }, i) => {
    const at = spans[i]![0]!;
    expect(found.nextIds.slice(at, at + guesses.length)).toEqual(guesses);
    const position = before - 1 + right;
    expect([found.index[i], found.positions[i]]).toEqual([at + right, position]);
    for (const [settings, draft] of [
      [found.first, 0],
      [found.last, 2],
    ] as const) {
      const uniform = draws[i]![3 + 1 + right + draft]!;
      expect(settings.slice(4 * i, 4 * i + 4)).toEqual([0.5, Math.fround(0.9), i, uniform]);
    }
    expect(found.place[i]).toBe(position + 2);
    expect(found.slot[i]).toBe(
      blocks[Math.floor((position + 2) / blockTokens)]! * blockTokens + ((position + 2) % blockTokens),
    );
  });
});
