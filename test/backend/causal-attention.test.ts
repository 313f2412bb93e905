import { describe, expect, test } from 'vitest';
import type { Compute, Graph, Tensor } from '../../src/backend/graph.ts';
import { setThreads, threads } from '../../src/backend/native.ts';
import { type CausalHeads, causalAttention } from '../../src/backend/ops.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { dot, noise, relativeError, runOps, slope } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

type Inputs = { q: number[]; k: number[]; shared: number[]; v: number[] };

/** Plain float64: out [R, heads · vDim] and log Σ exp(score) [R, heads]. */
function attention64(shape: CausalHeads, starts: number[], { q, k, shared, v }: Inputs) {
  const { heads, kvHeads, qkDim, sharedDim, vDim, keyStride, valueStride, softmaxScale } = shape;
  const rows = starts.length;
  const out: number[] = [];
  const logSums: number[] = [];
  for (let r = 0; r < rows; r++) {
    for (let h = 0; h < heads; h++) {
      const g = Math.floor((h * kvHeads) / heads);
      const query = q.slice((r * heads + h) * qkDim, (r * heads + h + 1) * qkDim);
      const key = (j: number) => [
        ...k.slice((j * kvHeads + g) * keyStride, (j * kvHeads + g) * keyStride + qkDim - sharedDim),
        ...shared.slice(j * sharedDim, (j + 1) * sharedDim),
      ];
      const weights: number[] = [];
      for (let j = starts[r]!; j <= r; j++) weights.push(Math.exp(softmaxScale * dot(query, key(j))));
      const total = weights.reduce((a, b) => a + b);
      logSums.push(Math.log(total));
      for (let c = 0; c < vDim; c++) {
        const at = (i: number) => v[((starts[r]! + i) * kvHeads + g) * valueStride + c]!;
        out.push(weights.reduce((sum, w, i) => sum + (w / total) * at(i), 0));
      }
    }
  }
  return { out, logSums };
}

const shapes: (CausalHeads & { rows: number; starts: (row: number) => number })[] = [
  {
    ...{ heads: 3, kvHeads: 3, qkDim: 7, sharedDim: 3, vDim: 5, keyStride: 9, valueStride: 9, softmaxScale: 0.7 },
    ...{ rows: 21, starts: (r) => (r < 5 ? 0 : r < 6 ? 5 : 6) },
  },
  {
    ...{ heads: 4, kvHeads: 2, qkDim: 4, sharedDim: 0, vDim: 4, keyStride: 4, valueStride: 4, softmaxScale: 0.9 },
    ...{ rows: 36, starts: (r) => (r < 33 ? 0 : 33) },
  },
];

/** Forward and backward in one run. A key's and a value's columns lie side by side where the strides say so. */
function runBoth(shape: CausalHeads, starts: number[], inputs: Inputs, seed: number[], compute: Compute = 'f32') {
  const { heads, kvHeads, vDim, keyStride, valueStride, qkDim, sharedDim } = shape;
  const rows = starts.length;
  const zeros = (list: number[]) => list.map(() => 0);
  const given = {
    q: { cols: heads * qkDim, values: inputs.q },
    k: { cols: kvHeads * keyStride, values: inputs.k },
    shared: { cols: sharedDim || 1, values: sharedDim ? inputs.shared : starts },
    v: { cols: kvHeads * valueStride, values: inputs.v },
    starts: { cols: 1, values: starts, dtype: 'i32' as const },
    dOut: { cols: heads * vDim, values: seed },
    dQ: { cols: heads * qkDim, values: zeros(inputs.q) },
    dK: { cols: kvHeads * keyStride, values: zeros(inputs.k) },
    dShared: { cols: sharedDim || 1, values: zeros(sharedDim ? inputs.shared : starts) },
    dV: { cols: kvHeads * valueStride, values: zeros(inputs.v) },
    delta: { cols: heads, values: new Float32Array(rows * heads) },
  };
  const build = (graph: Graph, t: Record<keyof typeof given, Tensor>) => {
    const shared = sharedDim ? t.shared : null;
    const out = causalAttention(graph, t.q, t.k, shared, t.v, t.starts, shape);
    const forward = graph.ops[graph.ops.length - 1]!;
    const logSums = forward.writes[1]!;
    graph.ops.push({
      kernel: 'causal_attention_backward',
      writes: [t.dQ, t.dK, sharedDim ? t.dShared : null, t.dV, t.delta],
      reads: [t.dOut, out, logSums, t.q, t.k, shared, t.v, t.starts],
      scalars: [...forward.scalars, 1, 1, 1],
    });
    return { out, logSums, dQ: t.dQ, dK: t.dK, dShared: t.dShared, dV: t.dV };
  };
  return runOps(given, build, compute);
}

function makeInputs(shape: CausalHeads, rows: number): Inputs {
  return {
    q: noise(rows * shape.heads * shape.qkDim, 1),
    k: noise(rows * shape.kvHeads * shape.keyStride, 2),
    shared: noise(rows * shape.sharedDim, 3),
    v: noise(rows * shape.kvHeads * shape.valueStride, 4),
  };
}

describe.each(shapes)(
  'causal attention of $heads heads over $rows rows of packed documents',
  ({ rows, starts, ...shape }) => {
    const first = Array.from({ length: rows }, (_, r) => starts(r));
    const inputs = makeInputs(shape, rows);
    const seed = noise(rows * shape.heads * shape.vDim, 5);

    test('is softmax(q · K) V over the rows of the document so far', async () => {
      const { out, logSums } = await runBoth(shape, first, inputs, seed);
      const expected = attention64(shape, first, inputs);
      expect(relativeError(out, expected.out)).toBeLessThan(1e-6);
      expect(relativeError(logSums, expected.logSums)).toBeLessThan(1e-6);
    });

    test('its backward pass is the slope of the forward pass', async () => {
      const { dQ, dK, dShared, dV } = await runBoth(shape, first, inputs, seed);
      const loss = (change: Partial<Inputs>) => dot(attention64(shape, first, { ...inputs, ...change }).out, seed);
      const slopes = {
        q: slope((q) => loss({ q }), inputs.q),
        k: slope((k) => loss({ k }), inputs.k),
        shared: slope((shared) => loss({ shared }), inputs.shared),
        v: slope((v) => loss({ v }), inputs.v),
      };
      expect(relativeError(dQ, slopes.q)).toBeLessThan(3e-6);
      expect(relativeError(dK, slopes.k)).toBeLessThan(3e-6);
      if (shape.sharedDim) expect(relativeError(dShared, slopes.shared)).toBeLessThan(3e-6);
      expect(relativeError(dV, slopes.v)).toBeLessThan(3e-6);
    });
  },
);

describe('over many blocks of rows', () => {
  const shape = {
    ...{ heads: 2, kvHeads: 2, qkDim: 24, sharedDim: 8, vDim: 16, keyStride: 16, valueStride: 16, softmaxScale: 0.25 },
  };
  const rows = 200;
  const starts = Array.from({ length: rows }, (_, r) => (r < 130 ? 0 : r < 150 ? 130 : 150));
  const inputs = makeInputs(shape, rows);
  const seed = noise(rows * shape.heads * shape.vDim, 6);

  test('the forward pass and a directional derivative agree with float64', async () => {
    const { out, dQ, dK, dShared, dV } = await runBoth(shape, starts, inputs, seed);
    expect(relativeError(out, attention64(shape, starts, inputs).out)).toBeLessThan(1e-6);
    for (const name of ['q', 'k', 'shared', 'v'] as const) {
      const gradient = { q: dQ, k: dK, shared: dShared, v: dV }[name];
      const direction = noise(inputs[name].length, 7);
      const at = (step: number) => {
        const moved = { ...inputs, [name]: inputs[name].map((x, i) => x + step * direction[i]!) };
        return dot(attention64(shape, starts, moved).out, seed);
      };
      const expected = (at(1e-5) - at(-1e-5)) / 2e-5;
      expect(Math.abs(dot(gradient, direction) / expected - 1)).toBeLessThan(1e-5);
    }
  });

  test('fast compute stays within the rounding of bf16', async () => {
    const exact = await runBoth(shape, starts, inputs, seed);
    const fast = await runBoth(shape, starts, inputs, seed, 'fast');
    for (const name of ['out', 'logSums', 'dQ', 'dK', 'dShared', 'dV'] as const) {
      expect(relativeError(fast[name], exact[name])).toBeLessThan(1e-2);
    }
  });

  test('the number of threads changes no bit', async () => {
    const before = threads();
    setThreads(1);
    const alone = await runBoth(shape, starts, inputs, seed, 'fast');
    setThreads(3);
    const together = await runBoth(shape, starts, inputs, seed, 'fast');
    setThreads(before);
    expect(together).toEqual(alone);
  });
});
