/** Products give the same bits whatever else is in the step and whoever computes it (DESIGN, contract 3). */
import fc from 'fast-check';
import { afterAll, expect, test } from 'vitest';
import { createGraph, type Tensor } from '../../src/backend/graph.ts';
import { setThreads, threads } from '../../src/backend/native.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { column, held, matrix, type Packed, packedOf, room, runGraph, stored } from './product-operands.ts';
import { noise } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const before = threads();
afterAll(() => setThreads(before));

const storedAs = { packed_f32: 'f32', packed_bf16: 'bf16', packed_fp8: 'fp8', packed_fp4: 'nvfp4' } as const;
const anyFormat = fc.constantFrom<Packed>('packed_f32', 'packed_bf16', 'packed_fp8', 'packed_fp4');
const anyFast = fc.constantFrom(0, 1);
const seeds = fc.integer({ min: 1, max: 1e6 });
const upTo = (max: number) => fc.integer({ min: 1, max });
const bits = (values: Float32Array) => Buffer.from(values.buffer, values.byteOffset, values.byteLength).toString('hex');

/** y of one product, computed by `threadCount` threads. */
async function product(format: Packed, fast: number, x: Float32Array, n: number, k: number, threadCount: number) {
  setThreads(threadCount);
  const graph = createGraph('f32');
  const rows = x.length / k;
  const y = room(rows, n);
  const reads = [matrix(x, k).tensor, packedOf(graph, stored(storedAs[format], n, k, 7), format), null];
  graph.ops.push({ kernel: 'linear', writes: [y], reads, scalars: [fast, 0] });
  await runGraph(graph);
  return held(y);
}

test('a row is the same alone and among others, on any number of threads', async () => {
  await fc.assert(
    fc.asyncProperty(
      anyFormat,
      anyFast,
      upTo(130),
      upTo(150),
      upTo(300),
      seeds,
      async (format, fast, rows, n, k, seed) => {
        const x = Float32Array.from(noise(rows * k, seed));
        const all = await product(format, fast, x, n, k, 1 + (seed % 4));
        for (const [first, count] of [
          [seed % rows, 1],
          [0, Math.ceil(rows / 2)],
          [Math.floor(rows / 3), Math.ceil(rows / 3)],
        ] as const) {
          const some = await product(format, fast, x.slice(first * k, (first + count) * k), n, k, 1 + (first % 4));
          expect(bits(some)).toBe(bits(all.slice(first * n, (first + count) * n)));
        }
      },
    ),
    { numRuns: 40 },
  );
});

test('an expert or a head computes what a product of its own computes', async () => {
  await fc.assert(
    fc.asyncProperty(
      anyFormat,
      anyFast,
      upTo(60),
      upTo(70),
      upTo(140),
      seeds,
      async (format, fast, rows, n, k, seed) => {
        const [topK, experts] = [2, 4];
        const chosen = noise(rows * topK, seed).map((v) => Math.floor((v + 1) * 2));
        const order = chosen.map((_, slot) => slot).sort((a, b) => chosen[a]! - chosen[b]! || a - b);
        const offsets = Array.from({ length: experts + 1 }, (_, e) => chosen.filter((c) => c < e).length);
        const x = matrix(noise(rows * k, seed + 1), k);
        const w = Array.from({ length: experts }, (_, e) => stored(storedAs[format], n, k, 10 + e));
        setThreads(1 + (seed % 4));
        const graph = createGraph('f32');
        const packed = w.map((m) => packedOf(graph, m, format));
        const grouped = room(rows * topK, n);
        const expertReads = [x.tensor, column(order), column(offsets), ...packed];
        graph.ops.push({ kernel: 'expert_linear', writes: [grouped], reads: expertReads, scalars: [fast, topK, 0] });
        const heads = room(rows, experts * n);
        const wide = matrix(
          Float32Array.from({ length: rows * k * experts }, (_, i) => wideValue(x.values, k, experts, i)),
          k * experts,
        );
        graph.ops.push({
          kernel: 'head_linear',
          writes: [heads],
          reads: [wide.tensor, ...packed],
          scalars: [fast, k, 0],
        });
        const each = packed.map((weight) => {
          const y = room(rows, n);
          graph.ops.push({ kernel: 'linear', writes: [y], reads: [x.tensor, weight, null], scalars: [fast, 0] });
          return y;
        });
        await runGraph(graph);
        const row = (y: Tensor, r: number) => held(y).slice(r * n, (r + 1) * n);
        order.forEach((slot, place) => {
          const token = Math.floor(slot / topK);
          expect(bits(row(grouped, place))).toBe(bits(row(each[chosen[slot]!]!, token)));
        });
        for (let r = 0; r < rows; r++) {
          const alone = each.map((y) => bits(row(y, r))).join('');
          expect(bits(held(heads).slice(r * experts * n, (r + 1) * experts * n))).toBe(alone);
        }
      },
    ),
    { numRuns: 25 },
  );
});

/** Value i of [rows, heads · k] in which every head sees the same x [rows, k]. */
function wideValue(x: Float32Array, k: number, heads: number, i: number): number {
  return x[Math.floor(i / (k * heads)) * k + (i % k)]!;
}

test('a weight gradient is the same on any number of threads', async () => {
  await fc.assert(
    fc.asyncProperty(anyFast, upTo(600), upTo(60), upTo(90), seeds, async (fast, rows, n, k, seed) => {
      const [dy, x] = [matrix(noise(rows * n, seed), n), matrix(noise(rows * k, seed + 1), k)];
      const gradients = [];
      for (const threadCount of [1, 2, 3, 4]) {
        setThreads(threadCount);
        const graph = createGraph('f32');
        const dw = room(n, k, 0);
        graph.ops.push({ kernel: 'outer', writes: [dw], reads: [dy.tensor, x.tensor], scalars: [fast] });
        await runGraph(graph);
        gradients.push(bits(held(dw)));
      }
      expect(new Set(gradients).size).toBe(1);
    }),
    { numRuns: 20 },
  );
});
