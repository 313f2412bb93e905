import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compile } from '../../src/backend/compile.ts';
import { createFp8, fp8Outer, quantiseWeight } from '../../src/backend/fp8-ops.ts';
import { createGraph, resident, type Tensor } from '../../src/backend/graph.ts';
import { E4M3_VALUES, float32ToE4m3 } from '../../src/numerics/e4m3.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { column, held, matrix, room, runGraph } from './product-operands.ts';
import { noise } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const LENGTHS = { token: 0, logit: 0, sequence: 0 };
const bytes = (rows: number, cols: number, dtype: 'fp8' | 'packed_fp8', scales = 0): Tensor => {
  const byteLength = dtype === 'fp8' ? rows * cols : Math.ceil(rows / 16) * 16 * Math.ceil(cols / 4) * 4;
  const region = (size: number) => ({ buffer: new ArrayBuffer(size), byteOffset: 0, byteLength: size });
  return resident(rows, cols, dtype, region(byteLength), scales ? region(scales * 4) : null);
};

/** DeepSeek-V3 report §3.3.2 for one group of numbers, in float64 but where the specification rounds. */
function group64(values: number[], powersOfTwo: boolean): { numbers: number[]; scale: number } {
  const finite = values.map((v) => (Number.isFinite(v) ? v : 0));
  const most = finite.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
  const exact = most === 0 ? 1 : Math.max(Math.fround(most / 448), 2 ** -126);
  const scale = powersOfTwo ? 2 ** Math.ceil(Math.log2(exact)) : exact;
  return { numbers: finite.map((v) => E4M3_VALUES[float32ToE4m3(Math.fround(v / scale))]!), scale };
}

/** Tiles of 128 along each row: numbers and scales as matrices. */
function tiles64(values: ArrayLike<number>, cols: number, powersOfTwo: boolean) {
  const rows = values.length / cols;
  const each = Array.from({ length: rows }, (_, r) =>
    Array.from({ length: Math.ceil(cols / 128) }, (_, t) =>
      group64(
        Array.from({ length: Math.min(128, cols - 128 * t) }, (_, c) => values[r * cols + 128 * t + c]!),
        powersOfTwo,
      ),
    ),
  );
  return {
    number: (r: number, c: number) => each[r]![Math.floor(c / 128)]!.numbers[c % 128]!,
    scale: (r: number, t: number) => each[r]![t]!.scale,
  };
}

/** Blocks of 128 × 128. */
function blocks64(values: ArrayLike<number>, cols: number, powersOfTwo: boolean) {
  const rows = values.length / cols;
  const across = Math.ceil(cols / 128);
  const inBlock = (b: number) => {
    const [n0, k0] = [Math.floor(b / across) * 128, (b % across) * 128];
    const width = Math.min(128, cols - k0);
    return { n0, k0, width, count: width * Math.min(128, rows - n0) };
  };
  const each = Array.from({ length: Math.ceil(rows / 128) * across }, (_, b) => {
    const { n0, k0, width, count } = inBlock(b);
    const at = (i: number) => values[(n0 + Math.floor(i / width)) * cols + k0 + (i % width)]!;
    return group64(
      Array.from({ length: count }, (_, i) => at(i)),
      powersOfTwo,
    );
  });
  const block = (n: number, k: number) => Math.floor(n / 128) * across + Math.floor(k / 128);
  return {
    number: (n: number, k: number) => each[block(n, k)]!.numbers[(n % 128) * inBlock(block(n, k)).width + (k % 128)]!,
    scale: (n: number, t: number) => each[block(n, t * 128)]!.scale,
  };
}

type Grouped = ReturnType<typeof tiles64>;

/** Σ over tiles of (Σ a · b) · scales, and how far FP32 sums of 128, and of tiles, may lie from it. */
function product64(a: Grouped, m: number, b: Grouped, n: number, depth: number) {
  let [sum, size] = [0, 0];
  for (let t = 0; t * 128 < depth; t++) {
    const scale = a.scale(m, t) * b.scale(n, t);
    for (let k = 128 * t; k < Math.min(depth, 128 * t + 128); k++) {
      sum += a.number(m, k) * b.number(n, k) * scale;
      size += Math.abs(a.number(m, k) * b.number(n, k) * scale);
    }
  }
  return { sum, error: (Math.min(depth, 128) + depth / 128 + 4) * 2 ** -24 * size };
}

function expectWithin(found: number, { sum, error }: { sum: number; error: number }, before: number, where: string) {
  const allowed = error + 2 ** -22 * (Math.abs(sum) + Math.abs(before)) + 1e-37;
  if (!(Math.abs(found - sum - before) <= allowed)) {
    expect.fail(`${where} is ${found}, expected ${sum + before} within ${allowed}`);
  }
}

const transposed = (values: ArrayLike<number>, cols: number) =>
  Float32Array.from({ length: values.length }, (_, i) => {
    const rows = values.length / cols;
    return values[(i % rows) * cols + Math.floor(i / rows)]!;
  });

/** x as tiles. */
function quantised(graph: ReturnType<typeof createGraph>, x: Tensor, powersOfTwo: boolean) {
  const rows = x.storage.rows.times;
  const [codes, scales] = [bytes(rows, x.cols, 'fp8'), room(rows, Math.ceil(x.cols / 128))];
  const flag = column([0]);
  graph.ops.push({ kernel: 'fp8_quantise', writes: [codes, scales, flag], reads: [x], scalars: [powersOfTwo ? 1 : 0] });
  return { codes, scales, flag };
}

function weightOf(graph: ReturnType<typeof createGraph>, w: Tensor, powersOfTwo: boolean) {
  const [n, k] = [w.storage.rows.times, w.cols];
  const blocks = Math.ceil(n / 128) * Math.ceil(k / 128);
  const [packed, turned] = [bytes(n, k, 'packed_fp8', blocks), bytes(k, n, 'packed_fp8', blocks)];
  quantiseWeight(graph, powersOfTwo, w, packed, turned);
  return { packed, turned };
}

const hostile: Record<string, (count: number, seed: number) => number[]> = {
  noise,
  zeros: (count) => new Array<number>(count).fill(0),
  'single outliers': (count, seed) => noise(count, seed).map((v, i) => (i % 97 === 5 ? v * 1e6 : v * 1e-3)),
  'subnormal floats': (count, seed) => noise(count, seed).map((v) => Math.fround(v * 1e-39)),
  'codes below 2^-6': (count, seed) => noise(count, seed).map((v, i) => Math.fround(i % 128 === 0 ? 448 : v * 2 ** -7)),
  'numbers near the greatest float': (count, seed) => noise(count, seed).map((v) => Math.fround(v * 3e38)),
  'ties between codes': (count) => Array.from({ length: count }, (_, i) => (i % 128 === 0 ? 448 : (i % 65) / 2 - 16)),
};

describe.each([false, true])('powers of two: %s', (powersOfTwo) => {
  test.each(Object.keys(hostile))('tiles of %s are the codes and scales of the specification', async (name) => {
    const [rows, cols] = [5, 300];
    const x = hostile[name]!(rows * cols, 3);
    const graph = createGraph('fast');
    const { codes, scales } = quantised(graph, matrix(x, cols).tensor, powersOfTwo);
    const restored = room(rows, cols);
    graph.ops.push({ kernel: 'fp8_restore', writes: [restored], reads: [codes, scales], scalars: [] });
    await runGraph(graph);
    const expected = tiles64(x.map(Math.fround), cols, powersOfTwo);
    const values = held(restored);
    for (let i = 0; i < rows * cols; i++) {
      const [r, c] = [Math.floor(i / cols), i % cols];
      expect(held(scales)[r * 3 + Math.floor(c / 128)]).toBe(expected.scale(r, Math.floor(c / 128)));
      const value = Math.fround(expected.number(r, c) * expected.scale(r, Math.floor(c / 128)));
      if (values[i] !== value && !(values[i] === 0 && value === 0))
        expect.fail(`${r}, ${c}: ${values[i]}, not ${value}`);
    }
  });

  const shapes = [
    [1, 16, 128],
    [5, 33, 131],
    [40, 150, 260],
    [140, 17, 20],
    [13, 17, 3],
    [20, 300, 400],
    [530, 18, 20],
  ] as const;
  const cases = shapes.flatMap((shape) =>
    ([20, 40, 530].includes(shape[0]) ? ['single outliers'] : ['noise', 'single outliers', 'codes below 2^-6']).map(
      (name) => [...shape, name] as const,
    ),
  );
  test.each(cases)(
    '%i rows, %i outputs, depth %i of %s: forward and both backward products',
    async (rows, n, k, name) => {
      const make = hostile[name]!;
      const [xs, ws, dys] = [make(rows * k, 1), make(n * k, 2), make(rows * n, 3)];
      const graph = createGraph('fast');
      const [x, w, dy] = [matrix(xs, k), matrix(ws, k), matrix(dys, n)];
      const { packed, turned } = weightOf(graph, w.tensor, powersOfTwo);
      const [xq, dyq] = [quantised(graph, x.tensor, powersOfTwo), quantised(graph, dy.tensor, powersOfTwo)];
      const bias = matrix(noise(n, 4), n);
      const [y, dx, dw, dwOfCodes] = [room(rows, n), room(rows, k, 0.5), room(n, k, 2), room(n, k, 0)];
      const reads = [xq.codes, xq.scales, packed, bias.tensor];
      graph.ops.push({ kernel: 'fp8_linear', writes: [y], reads, scalars: [0] });
      graph.ops.push({
        kernel: 'fp8_linear',
        writes: [dx],
        reads: [dyq.codes, dyq.scales, turned, null],
        scalars: [1],
      });
      const fp8 = createFp8(powersOfTwo, rows);
      fp8Outer(graph, fp8, [dw], dy.tensor, x.tensor, null);
      fp8Outer(graph, fp8, [dwOfCodes], dy.tensor, xq, null);
      const restored = room(rows, k);
      graph.ops.push({ kernel: 'fp8_restore', writes: [restored], reads: [xq.codes, xq.scales], scalars: [] });
      await runGraph(graph);
      const [ys, dxs, dws, dwsOfCodes] = [y, dx, dw, dwOfCodes].map(held) as [
        Float32Array,
        Float32Array,
        Float32Array,
        Float32Array,
      ];
      const wq = blocks64(w.values, k, powersOfTwo);
      const wTurned = {
        number: (i: number, j: number) => wq.number(j, i),
        scale: (i: number, t: number) => wq.scale(t * 128, Math.floor(i / 128)),
      };
      const [xt, dyt] = [tiles64(x.values, k, powersOfTwo), tiles64(dy.values, n, powersOfTwo)];
      const dyColumns = tiles64(transposed(dy.values, n), rows, powersOfTwo);
      const xColumns = tiles64(transposed(x.values, k), rows, powersOfTwo);
      const codeColumns = tiles64(transposed(held(restored), k), rows, powersOfTwo);
      for (let m = 0; m < rows; m++) {
        for (let j = 0; j < n; j++)
          expectWithin(ys[m * n + j]!, product64(xt, m, wq, j, k), bias.values[j]!, `y[${m}, ${j}]`);
        for (let c = 0; c < k; c++)
          expectWithin(dxs[m * k + c]!, product64(dyt, m, wTurned, c, n), 0.5, `dx[${m}, ${c}]`);
      }
      for (let i = 0; i < n * k; i += 1 + Math.floor((n * k) / 4000)) {
        const [j, c] = [Math.floor(i / k), i % k];
        expectWithin(dws[i]!, product64(dyColumns, j, xColumns, c, rows), 2, `dW[${j}, ${c}]`);
        expectWithin(dwsOfCodes[i]!, product64(dyColumns, j, codeColumns, c, rows), 0, `dW of codes[${j}, ${c}]`);
      }
    },
    30_000,
  );
});

test('experts multiply their own slots; tiles along tokens begin with an expert', async () => {
  const [rows, topK, experts, n, k] = [200, 2, 5, 20, 140];
  const chosen = noise(rows * topK, 44).map((v) => [0, 1, 3, 3][Math.floor((v + 1) * 2)]!);
  const order = chosen.map((_, slot) => slot).sort((a, b) => chosen[a]! - chosen[b]! || a - b);
  const offsets = Array.from({ length: experts + 1 }, (_, e) => chosen.filter((c) => c < e).length);
  const graph = createGraph('fast');
  const [x, dy] = [matrix(noise(rows * k, 5), k), matrix(noise(rows * topK * n, 6), n)];
  const w = Array.from({ length: experts }, (_, e) => matrix(noise(n * k, 10 + e), k));
  const packed = w.map(({ tensor }) => weightOf(graph, tensor, false));
  const xq = quantised(graph, x.tensor, false);
  const [y, dw] = [room(rows * topK, n), w.map(() => room(n, k, 1))];
  const slots = { order: column(order), offsets: column(offsets), topK };
  const reads = [xq.codes, xq.scales, slots.order, slots.offsets, ...packed.map((each) => each.packed)];
  graph.ops.push({ kernel: 'fp8_expert_linear', writes: [y], reads, scalars: [topK, 0] });
  fp8Outer(graph, createFp8(false, rows), dw, dy.tensor, x.tensor, slots);
  await runGraph(graph);
  const [ys, dws] = [held(y), dw.map(held)];
  for (let e = 0; e < experts; e++) {
    const slots = order.slice(offsets[e], offsets[e + 1]);
    const mine = slots.flatMap((slot) => [...x.values.subarray(Math.floor(slot / topK) * k).subarray(0, k)]);
    const [xt, wq] = [tiles64(mine, k, false), blocks64(w[e]!.values, k, false)];
    slots.forEach((_, s) => {
      for (let j = 0; j < n; j++)
        expectWithin(ys[(offsets[e]! + s) * n + j]!, product64(xt, s, wq, j, k), 0, `expert ${e}: y[${s}, ${j}]`);
    });
    const gradients = tiles64(
      transposed(dy.values.slice(offsets[e]! * n, offsets[e + 1]! * n), n),
      slots.length,
      false,
    );
    const columns = tiles64(transposed(mine, k), slots.length, false);
    for (let i = 0; i < n * k; i++) {
      const [j, c] = [Math.floor(i / k), i % k];
      const expected = slots.length > 0 ? product64(gradients, j, columns, c, slots.length) : { sum: 0, error: 0 };
      expectWithin(dws[e]![i]!, expected, 1, `expert ${e}: dW[${j}, ${c}]`);
    }
  }
});

test('a number that is not finite raises the flag and counts as 0', async () => {
  const wrong = fc.constantFrom(Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY);
  await fc.assert(
    fc.asyncProperty(wrong, fc.nat(299), async (value, at) => {
      const clean = noise(300, 8).map((v, i) => (i === at ? 0 : v));
      const results = await Promise.all(
        [clean, clean.map((v, i) => (i === at ? value : v))].map(async (values) => {
          const graph = createGraph('fast');
          const tiles = quantised(graph, matrix(values, 300).tensor, false);
          const program = compile(graph, LENGTHS);
          await program.run({});
          const { buffer } = tiles.codes.storage.memory as { buffer: ArrayBuffer };
          return {
            codes: [...new Uint8Array(buffer)],
            scales: [...held(tiles.scales)],
            flag: program.i32(tiles.flag)[0],
          };
        }),
      );
      expect(results.map(({ flag }) => flag)).toEqual([0, 1]);
      expect(results[1]!.codes).toEqual(results[0]!.codes);
      expect(results[1]!.scales).toEqual(results[0]!.scales);
    }),
    { numRuns: 20 },
  );
});
