import { expect, test } from 'vitest';
import { setThreads, threads } from '../../src/backend/native.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { noise, relativeError, runOps } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const size = 8197 * 3;

test('adamw follows algorithm 2 of Decoupled Weight Decay Regularization', async () => {
  const [lr, beta1, beta2, eps, decay, scale] = [3e-3, 0.9, 0.95, 1e-8, 0.1, 0.5].map(Math.fround) as number[];
  const cols = size / 3;
  const start = noise(size, 1);
  let param = start;
  let m = start.map(() => 0);
  let v = start.map(() => 0);
  const expected = { param: [...start], m: [...m], v: [...v] };
  for (let t = 1; t <= 3; t++) {
    const grad = noise(size, 10 + t);
    const control = [lr!, beta1!, beta2!, eps!, decay!, 1 - beta1! ** t, 1 - beta2! ** t, scale!];
    const given = {
      ...{ param: { cols, values: param }, m: { cols, values: m }, v: { cols, values: v } },
      ...{ grad: { cols, values: grad }, control: { cols: 8, values: control } },
    };
    ({ param, m, v } = await runOps(given, (graph, t) => {
      graph.ops.push({ kernel: 'adamw', writes: [t.param, t.m, t.v], reads: [t.grad, t.control], scalars: [] });
      return { param: t.param, m: t.m, v: t.v };
    }));
    for (let i = 0; i < size; i++) {
      const g = grad[i]! * scale!;
      expected.m[i] = beta1! * expected.m[i]! + (1 - beta1!) * g;
      expected.v[i] = beta2! * expected.v[i]! + (1 - beta2!) * g * g;
      const mean = expected.m[i]! / (1 - beta1! ** t);
      const square = expected.v[i]! / (1 - beta2! ** t);
      expected.param[i]! -= lr! * (mean / (Math.sqrt(square) + eps!) + decay! * expected.param[i]!);
    }
  }
  expect(relativeError(m, expected.m)).toBeLessThan(1e-6);
  expect(relativeError(v, expected.v)).toBeLessThan(1e-6);
  expect(relativeError(param, expected.param)).toBeLessThan(1e-6);
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
