import { describe, expect, test } from 'vitest';
import { type Compute, columns, createGraph, type Tensor } from '../../src/backend/graph.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import {
  column,
  held,
  type Matrix,
  matrix,
  type Packed,
  packedOf,
  packedTransposeOf,
  room,
  roundedToBf16,
  runGraph,
  stored,
} from './product-operands.ts';
import { noise, relativeError } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const storedAs = { packed_f32: 'f32', packed_bf16: 'bf16', packed_fp8: 'fp8', packed_fp4: 'nvfp4' } as const;
const formats = Object.keys(storedAs) as Packed[];
const computes = ['f32', 'fast'] as const;
const each = formats.flatMap((format) => computes.map((compute) => [format, compute] as const));
const rounds = (format: Packed, compute: Compute) => compute === 'fast' && format !== 'packed_f32';

/** Σ a[i] · b[i] in float64, and how far a sum in float32 may lie from it: one rounding a term and a few more. */
function sum64(count: number, a: (i: number) => number, b: (i: number) => number) {
  let [sum, size] = [0, 0];
  for (let i = 0; i < count; i++) {
    sum += a(i) * b(i);
    size += Math.abs(a(i) * b(i));
  }
  return { sum, error: (count + 4) * 2 ** -24 * size };
}

/** Holds y[m, n] to Σ_k x[m, k] · w[n, k] + before[m, n]. `x` has the rows of y. */
function expectProduct(y: ArrayLike<number>, x: Float32Array, w: Matrix, before: (m: number, n: number) => number) {
  for (let m = 0; m * w.rows < y.length; m++) {
    for (let n = 0; n < w.rows; n++) {
      const { sum, error } = sum64(
        w.cols,
        (k) => x[m * w.cols + k]!,
        (k) => w.values[n * w.cols + k]!,
      );
      const expected = sum + before(m, n);
      const difference = Math.abs(y[m * w.rows + n]! - expected);
      if (!(difference <= error + 2 ** -23 * Math.abs(expected) + 1e-30)) {
        expect.fail(`y[${m}, ${n}] is ${y[m * w.rows + n]}, expected ${expected} within ${error}`);
      }
    }
  }
}

const flags = (compute: Compute, ...more: number[]) => [compute === 'fast' ? 1 : 0, ...more];

describe.each(each)('%s weights, %s compute', (format, compute) => {
  const operand = (values: Float32Array) => (rounds(format, compute) ? roundedToBf16(values) : values);

  test.each([
    [1, 16, 128],
    [1, 150, 259],
    [2, 65, 64],
    [3, 5, 1],
    [5, 33, 131],
    [13, 17, 3],
    [29, 48, 256],
    [100, 70, 130],
    [201, 31, 40],
    [0, 16, 16],
  ])('%i rows, %i outputs, depth %i: within float32 rounding of the exact sum', async (rows, n, k) => {
    const graph = createGraph(compute);
    const x = matrix(noise(rows * k, 1), k);
    const w = stored(storedAs[format], n, k, 2);
    const bias = matrix(noise(n, 3), n);
    const [y, added] = [room(rows, n), room(rows, n, 0.5)];
    const packed = packedOf(graph, w, format);
    graph.ops.push({
      kernel: 'linear',
      writes: [y],
      reads: [x.tensor, packed, bias.tensor],
      scalars: flags(compute, 0),
    });
    graph.ops.push({ kernel: 'linear', writes: [added], reads: [x.tensor, packed, null], scalars: flags(compute, 1) });
    await runGraph(graph);
    expectProduct(held(y), operand(x.values), w, (_, j) => bias.values[j]!);
    expectProduct(held(added), operand(x.values), w, () => 0.5);
  });

  test('a row has the same bits, whatever rows are multiplied beside it', async () => {
    const [most, n, k] = [70, 83, 390];
    const graph = createGraph(compute);
    const x = matrix(noise(most * k, 6), k);
    const packed = packedOf(graph, stored(storedAs[format], n, k, 7), format);
    const counts = [most, 1, 2, 3, 4, 5, 13, 16, 17, 32, 33, 49];
    const products = counts.map((rows) => {
      const y = room(rows, n);
      const reads = [matrix(x.values.slice(0, rows * k), k).tensor, packed, null];
      graph.ops.push({ kernel: 'linear', writes: [y], reads, scalars: flags(compute, 0) });
      return y;
    });
    await runGraph(graph);
    const all = held(products[0]!);
    for (const y of products) expect(held(y)).toEqual(all.slice(0, held(y).length));
  });

  test('columns of wider tensors are read and written in place', async () => {
    const [rows, n, k] = [14, 37, 75];
    const graph = createGraph(compute);
    const wide = matrix(noise(rows * 100, 4), 100);
    const w = stored(storedAs[format], n, k, 5);
    const y = room(rows, 50);
    const reads = [columns(wide.tensor, 11, k), packedOf(graph, w, format), null];
    graph.ops.push({ kernel: 'linear', writes: [columns(y, 6, n)], reads, scalars: flags(compute, 0) });
    await runGraph(graph);
    const x = Float32Array.from({ length: rows * k }, (_, i) => wide.values[Math.floor(i / k) * 100 + 11 + (i % k)]!);
    const all = held(y);
    const inside = (i: number) => i % 50 >= 6 && i % 50 < 6 + n;
    expectProduct(
      all.filter((_, i) => inside(i)),
      operand(x),
      w,
      () => 0,
    );
    expect(all.filter((value, i) => !inside(i) && value !== 12345)).toEqual(new Float32Array());
  });

  test.each([
    ['few slots', 2, 3],
    ['many slots', 70, 3],
  ])('each expert multiplies its own slots, %s, some experts none', async (_, rows, topK) => {
    const [experts, n, k] = [6, 20, 139];
    const chosen = noise(rows * topK, 6).map((v) => [0, 2, 3, 3, 5][Math.floor((v + 1) * 2.5)]!);
    const order = chosen.map((_, slot) => slot).sort((a, b) => chosen[a]! - chosen[b]! || a - b);
    const offsets = Array.from({ length: experts + 1 }, (_, e) => chosen.filter((c) => c < e).length);
    const graph = createGraph(compute);
    const x = matrix(noise(rows * k, 7), k);
    const sorted = matrix(noise(rows * topK * k, 8), k);
    const w = Array.from({ length: experts }, (_, e) => stored(storedAs[format], n, k, 10 + e));
    const packed = w.map((m) => packedOf(graph, m, format));
    const expertLinear = (y: Tensor, from: Matrix, gatherTopK: number, accumulate: number) => {
      const reads = [from.tensor, column(order), column(offsets), ...packed];
      graph.ops.push({ kernel: 'expert_linear', writes: [y], reads, scalars: flags(compute, gatherTopK, accumulate) });
    };
    const [gathered, inPlace] = [room(rows * topK, n), room(rows * topK, n, 2)];
    expertLinear(gathered, x, topK, 0);
    expertLinear(inPlace, sorted, 0, 1);
    await runGraph(graph);
    for (let e = 0; e < experts; e++) {
      const slots = order.slice(offsets[e], offsets[e + 1]);
      const rowsOf = (y: Tensor) => held(y).subarray(offsets[e]! * n, offsets[e + 1]! * n);
      const xs = slots.flatMap((slot) => [...x.values.subarray(Math.floor(slot / topK) * k).subarray(0, k)]);
      expectProduct(rowsOf(gathered), operand(Float32Array.from(xs)), w[e]!, () => 0);
      expectProduct(
        rowsOf(inPlace),
        operand(sorted.values.slice(offsets[e]! * k, offsets[e + 1]! * k)),
        w[e]!,
        () => 2,
      );
    }
  });

  test('each head multiplies its own columns', async () => {
    const [rows, heads, headDim, offset, n, k] = [9, 3, 50, 7, 35, 43];
    const graph = createGraph(compute);
    const x = matrix(noise(rows * heads * headDim, 20), heads * headDim);
    const w = Array.from({ length: heads }, (_, h) => stored(storedAs[format], n, k, 21 + h));
    const y = room(rows, heads * n);
    const reads = [x.tensor, ...w.map((m) => packedOf(graph, m, format))];
    graph.ops.push({ kernel: 'head_linear', writes: [y], reads, scalars: flags(compute, headDim, offset) });
    await runGraph(graph);
    for (let h = 0; h < heads; h++) {
      const at = (m: number, c: number) => x.values[m * heads * headDim + h * headDim + offset + c]!;
      const xs = Float32Array.from({ length: rows * k }, (_, i) => at(Math.floor(i / k), i % k));
      const ys = held(y).filter((_, i) => Math.floor((i % (heads * n)) / n) === h);
      expectProduct(ys, operand(xs), w[h]!, () => 0);
    }
  });

  test('rounding activations costs what bf16 costs, FP32 activations almost nothing', async () => {
    const [rows, n, k] = [8, 64, 512];
    const graph = createGraph(compute);
    const x = matrix(noise(rows * k, 30), k);
    const w = stored(storedAs[format], n, k, 31);
    const y = room(rows, n);
    const reads = [x.tensor, packedOf(graph, w, format), null];
    graph.ops.push({ kernel: 'linear', writes: [y], reads, scalars: flags(compute, 0) });
    await runGraph(graph);
    const exact = Array.from({ length: rows * n }, (_, i) => {
      const [m, j] = [Math.floor(i / n), i % n];
      return sum64(
        k,
        (c) => x.values[m * k + c]!,
        (c) => w.values[j * k + c]!,
      ).sum;
    });
    // rounding to 8 bits: a relative error spread over ±2⁻⁹ has a root mean square of 2⁻⁹/√3 at most
    expect(relativeError(held(y), exact)).toBeLessThan(rounds(format, compute) ? 2 ** -9 : 1e-6);
  });
});

describe.each(computes)('weight gradients, %s compute', (compute) => {
  const operand = (values: Float32Array) => (compute === 'fast' ? roundedToBf16(values) : values);

  /** Holds dW to before + dyᵀ x over the rows given. */
  function expectOuter(dw: ArrayLike<number>, dy: Float32Array, n: number, x: Float32Array, k: number, before: number) {
    const [a, b] = [operand(dy), operand(x)];
    const rows = dy.length / n;
    for (let i = 0; i < n * k; i++) {
      const [j, c] = [Math.floor(i / k), i % k];
      const { sum, error } = sum64(
        rows,
        (r) => a[r * n + j]!,
        (r) => b[r * k + c]!,
      );
      const allowed = error + 2 ** -22 * (Math.abs(sum) + before);
      if (!(Math.abs(dw[i]! - sum - before) <= allowed)) {
        expect.fail(`dW[${j}, ${c}] is ${dw[i]}, expected ${sum + before} within ${allowed}`);
      }
    }
  }

  test.each([
    [1, 3, 5],
    [2, 16, 16],
    [31, 13, 29],
    [257, 70, 45],
    [300, 26, 410],
    [515, 210, 9],
    [0, 4, 4],
  ])('%i rows, %i × %i: added to what was there', async (rows, n, k) => {
    const graph = createGraph(compute);
    const [dy, x] = [matrix(noise(rows * n, 40), n), matrix(noise(rows * k, 41), k)];
    const dw = room(n, k, 3);
    graph.ops.push({ kernel: 'outer', writes: [dw], reads: [dy.tensor, x.tensor], scalars: flags(compute) });
    await runGraph(graph);
    expectOuter(held(dw), dy.values, n, x.values, k, 3);
  });

  test('columns of wider tensors take part in place', async () => {
    const [rows, n, k] = [33, 20, 35];
    const graph = createGraph(compute);
    const [dy, x] = [matrix(noise(rows * 40, 42), 40), matrix(noise(rows * 60, 43), 60)];
    const dw = room(n, k, 0);
    const reads = [columns(dy.tensor, 13, n), columns(x.tensor, 5, k)];
    graph.ops.push({ kernel: 'outer', writes: [dw], reads, scalars: flags(compute) });
    await runGraph(graph);
    const taken = (m: Matrix, from: number, cols: number) =>
      m.values.filter((_, i) => i % m.cols >= from && i % m.cols < from + cols);
    expectOuter(held(dw), taken(dy, 13, n), n, taken(x, 5, k), k, 0);
  });

  test('each expert gathers the gradient of its own slots, an idle one keeps its own', async () => {
    const [rows, topK, experts, n, k] = [90, 2, 5, 18, 40];
    const chosen = noise(rows * topK, 44).map((v) => [0, 1, 3, 4][Math.floor((v + 1) * 2)]!);
    const order = chosen.map((_, slot) => slot).sort((a, b) => chosen[a]! - chosen[b]! || a - b);
    const offsets = Array.from({ length: experts + 1 }, (_, e) => chosen.filter((c) => c < e).length);
    const graph = createGraph(compute);
    const dy = matrix(noise(rows * topK * n, 45), n);
    const x = matrix(noise(rows * k, 46), k);
    const sorted = matrix(noise(rows * topK * k, 47), k);
    const runs = [
      { from: x, gatherTopK: topK, dw: Array.from({ length: experts }, () => room(n, k, 1)) },
      { from: sorted, gatherTopK: 0, dw: Array.from({ length: experts }, () => room(n, k, 1)) },
    ];
    for (const { from, gatherTopK, dw } of runs) {
      const reads = [dy.tensor, from.tensor, column(order), column(offsets)];
      graph.ops.push({ kernel: 'expert_outer', writes: dw, reads, scalars: flags(compute, gatherTopK, experts) });
    }
    await runGraph(graph);
    for (let e = 0; e < experts; e++) {
      const mine = order.slice(offsets[e], offsets[e + 1]);
      const gradients = dy.values.slice(offsets[e]! * n, offsets[e + 1]! * n);
      const gathered = mine.flatMap((slot) => [...x.values.subarray(Math.floor(slot / topK) * k).subarray(0, k)]);
      expectOuter(held(runs[0]!.dw[e]!), gradients, n, Float32Array.from(gathered), k, 1);
      expectOuter(held(runs[1]!.dw[e]!), gradients, n, sorted.values.slice(offsets[e]! * k, offsets[e + 1]! * k), k, 1);
    }
  });
});

test('the transposed pack multiplies by the transpose', async () => {
  const [rows, n, k] = [6, 21, 37];
  const graph = createGraph('fast');
  const dy = matrix(noise(rows * n, 50), n);
  const w = stored('f32', n, k, 51);
  const dx = room(rows, k);
  const reads = [dy.tensor, packedTransposeOf(graph, w, 'packed_f32'), null];
  graph.ops.push({ kernel: 'linear', writes: [dx], reads, scalars: [1, 0] });
  await runGraph(graph);
  const transposed = Float32Array.from(w.values, (_, i) => w.values[(i % n) * k + Math.floor(i / n)]!);
  expectProduct(held(dx), dy.values, { ...w, rows: k, cols: n, values: transposed }, () => 0);
});
