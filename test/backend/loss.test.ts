import { describe, expect, test } from 'vitest';
import { crossEntropy } from '../../src/backend/ops.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { noise, relativeError, runOps, slope } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

const logSum64 = (x: number[]) => {
  const most = Math.max(...x);
  return Math.log(x.reduce((sum, v) => sum + Math.exp(v - most), 0)) + most;
};
const loss64 = (logits: number[], target: number) => logSum64(logits) - logits[target]!;

describe.each([5, 64, 2048, 5003])('over a vocabulary of %i', (vocab) => {
  const targets = [3, vocab - 1, -1, 0];
  const logits = noise(targets.length * vocab, 1).map((x) => Math.fround(20 * x));
  const row = (r: number) => logits.slice(r * vocab, (r + 1) * vocab);
  const seeds = [1, 0.25, 1, -2];
  const given = {
    logits: { cols: vocab, values: logits },
    targets: { cols: 1, values: targets, dtype: 'i32' as const },
    seeds: { cols: 1, values: seeds },
    gradient: { cols: vocab, values: logits },
  };

  test('cross_entropy is −log softmax of the target, 0 where there is none', async () => {
    const { loss } = await runOps(given, (graph, t) => ({ loss: crossEntropy(graph, t.logits, t.targets) }));
    const expected = targets.map((target, r) => (target < 0 ? 0 : loss64(row(r), target)));
    expect(relativeError(loss, expected)).toBeLessThan(1e-6);
  });

  test('its gradient is seed · (softmax − one-hot)', async () => {
    const { gradient } = await runOps(given, (graph, t) => {
      const reads = [t.logits, t.targets, t.seeds];
      graph.ops.push({ kernel: 'cross_entropy_backward', writes: [t.gradient], reads, scalars: [] });
      return { gradient: t.gradient };
    });
    targets.forEach((target, r) => {
      const got = gradient.slice(r * vocab, (r + 1) * vocab);
      if (target < 0) {
        expect(got.every((x) => x === 0)).toBe(true);
        return;
      }
      const total = logSum64(row(r));
      const expected =
        vocab <= 64
          ? slope((x) => seeds[r]! * loss64(x, target), row(r))
          : row(r).map((x, i) => seeds[r]! * (Math.exp(x - total) - (i === target ? 1 : 0)));
      expect(relativeError(got, expected)).toBeLessThan(2e-6);
    });
  });
});

test('logits far below the greatest and far apart neither overflow nor vanish', async () => {
  const given = {
    logits: { cols: 3, values: [-1e4, 1e4, 0, -2e5, -2e5, -2e5] },
    targets: { cols: 1, values: [1, 2], dtype: 'i32' as const },
  };
  const { loss } = await runOps(given, (graph, t) => ({ loss: crossEntropy(graph, t.logits, t.targets) }));
  expect(loss[0]).toBe(0);
  expect(Math.abs(loss[1]! - Math.log(3))).toBeLessThan(0.02); // 1/64 is the spacing of floats near 2e5
});
