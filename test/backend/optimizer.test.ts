import { expect, test } from 'vitest';
import { compile } from '../../src/backend/compile.ts';
import { createGraph, resident } from '../../src/backend/graph.ts';
import { setThreads, threads } from '../../src/backend/native.ts';
import { bf16ToFloat32, float32ToBf16 } from '../../src/numerics/bf16.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { noise, relativeError, runOps } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const size = 8197 * 3;

test('adamw follows algorithm 2 of Decoupled Weight Decay Regularization, moments rounded to bf16 after each step', async () => {
  const [lr, beta1, beta2, eps, decay, scale] = [3e-3, 0.9, 0.95, 1e-8, 0.1, 0.5].map(Math.fround) as number[];
  const start = noise(size, 1);
  const flat = (array: Float32Array | Uint16Array) =>
    resident(1, size, array instanceof Uint16Array ? 'bf16' : 'f32', {
      buffer: array.buffer as ArrayBuffer,
      byteOffset: 0,
      byteLength: array.byteLength,
    });
  const [param, grad] = [Float32Array.from(start), new Float32Array(size)];
  const [m, v, control] = [new Uint16Array(size), new Uint16Array(size), new Float32Array(8)];
  const graph = createGraph('fast');
  const writes = [flat(param), flat(m), flat(v)];
  const reads = [flat(grad), resident(1, 8, 'f32', { buffer: control.buffer, byteOffset: 0, byteLength: 32 })];
  graph.ops.push({ kernel: 'adamw', writes, reads, scalars: [] });
  const program = compile(graph, { token: 0, logit: 0, sequence: 0 });
  const expected = { param: [...start], m: new Float32Array(size), v: new Float32Array(size) };
  const rounded = (values: Float32Array) => bf16ToFloat32(float32ToBf16(values));
  for (let t = 1; t <= 3; t++) {
    grad.set(noise(size, 10 + t));
    control.set([lr!, beta1!, beta2!, eps!, decay!, 1 - beta1! ** t, 1 - beta2! ** t, scale!]);
    await program.run({});
    for (let i = 0; i < size; i++) {
      const g = grad[i]! * scale!;
      expected.m[i] = beta1! * expected.m[i]! + (1 - beta1!) * g;
      expected.v[i] = beta2! * expected.v[i]! + (1 - beta2!) * g * g;
      const mean = expected.m[i]! / (1 - beta1! ** t);
      const square = expected.v[i]! / (1 - beta2! ** t);
      expected.param[i]! -= lr! * (mean / (Math.sqrt(square) + eps!) + decay! * expected.param[i]!);
    }
    expected.m.set(rounded(expected.m));
    expected.v.set(rounded(expected.v));
  }
  // a few sums lie so near the middle of two bf16 numbers that f32 and f64 round them apart
  expect(relativeError(bf16ToFloat32(m), expected.m)).toBeLessThan(1e-4);
  expect(relativeError(bf16ToFloat32(v), expected.v)).toBeLessThan(1e-4);
  expect(relativeError(param, expected.param)).toBeLessThan(1e-5);
});

const sumSquares = async (values: ArrayLike<number>, cols: number, pieces: number) => {
  const given = { x: { cols, values }, out: { cols: pieces, values: new Float32Array(pieces).fill(7) } };
  const { out } = await runOps(given, (graph, t) => {
    graph.ops.push({ kernel: 'sum_squares', writes: [t.out], reads: [t.x], scalars: [] });
    return { out: t.out };
  });
  return out;
};

test.each([
  [1, 1, 1],
  [100, 10, 256],
  [size, size, 256],
  [size, 3, 1],
])('sum_squares of %i numbers in rows of %i is whole over %i pieces', async (count, cols, pieces) => {
  const x = noise(count, 3);
  const total = (await sumSquares(x, cols, pieces)).reduce((a, b) => a + b);
  const expected = x.reduce((sum, v) => sum + v * v, 0);
  expect(Math.abs(total / expected - 1)).toBeLessThan(1e-6);
});

test('sum_squares does not depend on the number of threads', async () => {
  const x = noise(100_003, 4);
  const before = threads();
  setThreads(1);
  const alone = await sumSquares(x, x.length, 64);
  setThreads(4);
  const together = await sumSquares(x, x.length, 64);
  setThreads(before);
  expect(together).toEqual(alone);
});
