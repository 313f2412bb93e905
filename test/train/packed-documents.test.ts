import fc from 'fast-check';
import { expect, test } from 'vitest';
import { balanceExperts, loadImbalance } from '../../src/train/balance.ts';
import { packDocuments } from '../../src/train/packed-documents.ts';
import { randomBits } from '../../src/train/random.ts';
import { learningRate, microBatches, type Schedule } from '../../src/train/schedule.ts';

/** Token d · 1000 + i is token i of document d, so every token tells where it is from. */
const documentsOf = (lengths: number[]) =>
  lengths.map((length, d) => ({
    ids: Array.from({ length }, (_, i) => d * 1000 + i),
    trained: Array.from({ length }, (_, i) => (i % 5 === 1 ? 0 : 1)),
  }));

const lengths = fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 4, maxLength: 30 });

test('each token learns the next of its own document, sees no other, and counts its position', () => {
  fc.assert(
    fc.property(lengths, fc.integer({ min: 0, max: 5 }), (sizes, index) => {
      fc.pre(sizes.reduce((a, b) => a + b, 0) >= 32);
      const documents = documentsOf(sizes);
      const { ids, positions, starts, targets, ahead } = packDocuments(documents, {
        modules: 3,
        sequence: 16,
        rows: 32,
        seed: 4,
      }).batch(index);
      for (let r = 0; r < 32; r++) {
        const [document, at] = [Math.floor(ids[r]! / 1000), ids[r]! % 1000];
        const learnt = (i: number) =>
          i < sizes[document]! && documents[document]!.trained[i] ? document * 1000 + i : -1;
        expect(targets[r]).toBe(learnt(at + 1));
        ahead.forEach((module, d) => {
          expect(module.targets[r]).toBe(learnt(at + d + 2));
          expect(module.ids[r]).toBe(at + d + 1 < sizes[document]! ? document * 1000 + at + d + 1 : 0);
        });
        expect(ahead.length).toBe(3);
        expect(positions[r]).toBe(r - starts[r]!);
        expect(starts[r]).toBeGreaterThanOrEqual(r - (r % 16));
        for (let s = starts[r]!; s < r; s++) expect(Math.floor(ids[s]! / 1000)).toBe(document);
      }
    }),
  );
});

test('an epoch reads no window twice; its order is decided by seed and epoch alone', () => {
  const documents = documentsOf(Array.from({ length: 40 }, (_, i) => 20 + (i % 9)));
  const packed = () => packDocuments(documents, { sequence: 16, rows: 64, seed: 7 });
  const { batches } = packed();
  const seen = Array.from({ length: batches }, (_, i) => [...packed().batch(i).ids]).flat();
  expect(new Set(seen).size).toBe(seen.length);
  const late = packed();
  expect(late.batch(batches + 1)).toEqual(packed().batch(batches + 1));
  expect(late.batch(0).ids).not.toEqual(late.batch(batches).ids);
});

test('too little text for a batch is refused with the numbers', () => {
  expect(() => packDocuments(documentsOf([10]), { sequence: 16, rows: 32, seed: 1 })).toThrow(
    '10 tokens are fewer than one batch of 32',
  );
});

const schedule: Schedule = { shape: 'wsd', peak: 1, floor: 0.1, warmupSteps: 10, steps: 100, decayShare: 0.2 };

test('learning rates warm up in a line, then follow the cosine or stay and decay', () => {
  expect([1, 5, 10].map((step) => learningRate(step, schedule))).toEqual([0.1, 0.5, 1]);
  expect([11, 50, 80].map((step) => learningRate(step, schedule))).toEqual([1, 1, 1]);
  expect(learningRate(90, schedule)).toBeCloseTo(0.55, 10);
  expect(learningRate(100, schedule)).toBeCloseTo(0.1, 10);
  const cosine = { ...schedule, shape: 'cosine' } as const;
  expect(learningRate(55, cosine)).toBeCloseTo(0.1 + 0.9 * 0.5, 10);
  expect(learningRate(100, cosine)).toBeCloseTo(0.1, 10);
});

test('a step grows from one micro-batch to all of them while the batch warms up', () => {
  const grown = Array.from({ length: 10 }, (_, i) => microBatches(i + 1, 4, 8));
  expect(grown).toEqual([1, 1, 1, 2, 2, 2, 3, 3, 4, 4]);
  expect(microBatches(1, 4, 0)).toBe(4);
});

test('selection biases bring a skewed load into balance', () => {
  const experts = 8;
  const bias = new Float32Array(experts);
  let imbalance = 0;
  for (let step = 0; step < 400; step++) {
    const counts = new Int32Array(experts);
    for (let token = 0; token < 512; token++) {
      // affinities favour the first experts strongly
      const scores = Array.from(bias, (b, e) => b + 0.3 - 0.04 * e + (randomBits(step, token, e) / 2 ** 32) * 0.2);
      for (const e of scores
        .map((s, i) => [s, i] as const)
        .sort((a, b) => b[0] - a[0])
        .slice(0, 2))
        counts[e[1]]!++;
    }
    if (step === 0) expect(loadImbalance(counts)).toBeGreaterThan(2);
    balanceExperts(bias, counts, 0.002);
    imbalance = loadImbalance(counts);
  }
  expect(imbalance).toBeLessThan(1.2);
});
