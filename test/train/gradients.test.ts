import { expect, test } from 'vitest';
import { compile } from '../../src/backend/compile.ts';
import {
  columns,
  createGraph,
  type Graph,
  own,
  resident,
  rowsOf,
  type Storage,
  storageBytes,
  type Tensor,
} from '../../src/backend/graph.ts';
import { allocate } from '../../src/backend/native.ts';
import {
  add,
  balanceLoss,
  causalAttention,
  concat,
  crossEntropy,
  embed,
  expertLinear,
  groupByExpert,
  linear,
  pack,
  packTransposed,
  rope,
  siluMul,
} from '../../src/backend/ops.ts';
import { differentiate, type ParameterGradient } from '../../src/train/autograd.ts';
import { dot, noise, relativeError, slope } from '../backend/run-op.ts';

/** Values by name: matrices [n, k] row-major. `weights` become packed parameters, `inputs` own tensors with gradients. */
interface Problem {
  readonly inputs: Record<string, { rows: number; cols: number; values: number[]; dtype?: 'i32' }>;
  readonly weights?: Record<string, { rows: number; cols: number; values: number[]; table?: boolean }>;
  /** Builds the result from named tensors. */
  build(graph: Graph, tensors: Record<string, Tensor>): Tensor;
}

/** The result, and the gradient of Σ seed · result with respect to everything named. */
async function gradientsOf({ inputs, weights = {}, build }: Problem) {
  const graph = createGraph('f32');
  const tensors: Record<string, Tensor> = {};
  const parameters = new Map<Storage, ParameterGradient>();
  const gradients: Record<string, Tensor> = {};
  const fills: [Tensor, number[]][] = [];
  for (const [name, { rows, cols, values, table }] of Object.entries(weights)) {
    const master = own(rowsOf(null, rows), cols);
    fills.push([master, values]);
    gradients[name] = own(rowsOf(null, rows), cols);
    if (table) {
      tensors[name] = master;
      parameters.set(master.storage, { gradient: gradients[name], transposed: null });
      continue;
    }
    const packed = (n: number, k: number) => {
      const byteLength = storageBytes('packed_f32', n, k);
      return resident(n, k, 'packed_f32', { buffer: allocate(byteLength), byteOffset: 0, byteLength });
    };
    const [forward, transposed] = [packed(rows, cols), packed(cols, rows)];
    pack(graph, master, forward);
    packTransposed(graph, master, transposed);
    tensors[name] = forward;
    parameters.set(forward.storage, { gradient: gradients[name], transposed });
  }
  for (const [name, { rows, cols, values, dtype }] of Object.entries(inputs)) {
    tensors[name] = own(rowsOf(null, rows), cols, dtype ?? 'f32');
    fills.push([tensors[name], values]);
  }
  const packs = graph.ops.splice(0);
  const result = build(graph, tensors);
  const seed = own(result.storage.rows, result.cols);
  const gradientOf = differentiate(graph, new Map([[result, seed]]), parameters);
  graph.ops.unshift(...packs);
  for (const [name, { dtype }] of Object.entries(inputs)) if (!dtype) gradients[name] = gradientOf(tensors[name]!)!;

  const keep = [...fills.map(([tensor]) => tensor), ...Object.values(gradients), result, seed];
  const program = compile(graph, { token: 0, logit: 0, sequence: 0 }, keep);
  for (const [tensor, values] of fills)
    (tensor.storage.dtype === 'i32' ? program.i32(tensor) : program.f32(tensor)).set(values);
  program.f32(seed).set(noise(program.f32(seed).length, 77));
  await program.run({});
  const read = (tensor: Tensor) => Array.from(program.f32(tensor));
  const named = Object.fromEntries(Object.entries(gradients).map(([name, tensor]) => [name, read(tensor)]));
  return { result: read(result), gradients: named, seeds: read(seed) };
}

/** Holds a problem to its float64 form: the result, and each gradient to the central difference. */
async function expectGradients(problem: Problem, reference: (at: Record<string, number[]>) => number[]) {
  const { result, gradients, seeds } = await gradientsOf(problem);
  const at = Object.fromEntries(
    Object.entries({ ...problem.inputs, ...problem.weights }).map(([name, { values }]) => [name, values]),
  );
  expect(relativeError(result, reference(at))).toBeLessThan(1e-5);
  for (const [name, gradient] of Object.entries(gradients)) {
    const expected = slope((values) => dot(reference({ ...at, [name]: values }), seeds), at[name]!);
    expect(relativeError(gradient, expected), `gradient of ${name}`).toBeLessThan(2e-5);
  }
}

/** x [rows, k] · wᵀ, w [n, k] */
const product = (x: number[], w: number[], k: number) => {
  const n = w.length / k;
  return Array.from({ length: (x.length / k) * n }, (_, i) => {
    const [r, o] = [Math.floor(i / n), i % n];
    return dot(x.slice(r * k, (r + 1) * k), w.slice(o * k, (o + 1) * k));
  });
};

test('linear with bias: gradients of input, weight and bias', async () => {
  const [rows, n, k] = [5, 19, 11];
  await expectGradients(
    {
      inputs: { x: { rows, cols: k, values: noise(rows * k, 1) } },
      weights: {
        w: { rows: n, cols: k, values: noise(n * k, 2) },
        bias: { rows: 1, cols: n, values: noise(n, 3), table: true },
      },
      build: (graph, t) => linear(graph, t.x!, t.w!, t.bias!),
    },
    ({ x, w, bias }) => product(x!, w!, k).map((y, i) => y + bias![i % n]!),
  );
});

test('a tensor used twice, and through column views, sums its gradients', async () => {
  const [rows, cols] = [4, 12];
  await expectGradients(
    {
      inputs: { x: { rows, cols, values: noise(rows * cols, 4) } },
      build: (graph, t) => {
        const left = columns(t.x!, 1, 5);
        const right = columns(t.x!, 4, 5);
        return concat(graph, siluMul(graph, left, right), add(graph, left, left));
      },
    },
    ({ x }) =>
      Array.from({ length: rows * 10 }, (_, i) => {
        const [r, c] = [Math.floor(i / 10), i % 10];
        const value = (col: number) => x![r * cols + col]!;
        if (c >= 5) return 2 * value(1 + c - 5);
        const gate = value(1 + c);
        return (gate / (1 + Math.exp(-gate))) * value(4 + c);
      }),
  );
});

test('rope after a product, and embedding rows used more than once', async () => {
  const positions = [0, 3, 50, 7];
  const frequencies = [1, 0.1, 0.01].map(Math.fround);
  const ids = [2, 0, 2, 4];
  const cols = 8;
  await expectGradients(
    {
      inputs: {
        ids: { rows: 4, cols: 1, values: ids, dtype: 'i32' },
        positions: { rows: 4, cols: 1, values: positions, dtype: 'i32' },
      },
      weights: { table: { rows: 5, cols, values: noise(5 * cols, 5), table: true } },
      build: (graph, t) => {
        const table = own(rowsOf(null, 1), 3);
        graph.ops.push(
          ...frequencies.map((value, i) => ({
            kernel: 'fill',
            writes: [columns(table, i, 1)],
            reads: [],
            scalars: [value],
          })),
        );
        const rows = embed(graph, t.ids!, t.table!);
        return rope(graph, rows, t.positions!, table, {
          heads: 1,
          headDim: cols,
          offset: 2,
          interleaved: true,
          magnitude: 1,
        });
      },
    },
    ({ table }) =>
      ids.flatMap((id, r) => {
        const row = table!.slice(id * cols, (id + 1) * cols);
        frequencies.forEach((frequency, i) => {
          const [a, b] = [row[2 + 2 * i]!, row[3 + 2 * i]!];
          const angle = positions[r]! * frequency;
          row[2 + 2 * i] = a * Math.cos(angle) - b * Math.sin(angle);
          row[3 + 2 * i] = a * Math.sin(angle) + b * Math.cos(angle);
        });
        return row;
      }),
  );
});

test('experts: gathered and sorted products, each weight from its own tokens', async () => {
  const [tokens, topK, k, hidden] = [6, 2, 7, 9];
  const chosen = [0, 2, 2, 1, 0, 1, 2, 0, 1, 2, 0, 2];
  const weights = Object.fromEntries(
    [0, 1, 2, 3].flatMap((e) => [
      [`up${e}`, { rows: hidden, cols: k, values: noise(hidden * k, 10 + e) }],
      [`down${e}`, { rows: k, cols: hidden, values: noise(k * hidden, 20 + e) }],
    ]),
  );
  const slots = chosen.map((expert, slot) => ({ expert, slot })).sort((a, b) => a.expert - b.expert || a.slot - b.slot);
  await expectGradients(
    {
      inputs: {
        x: { rows: tokens, cols: k, values: noise(tokens * k, 30) },
        chosen: { rows: tokens, cols: topK, values: chosen, dtype: 'i32' },
      },
      weights,
      build: (graph, t) => {
        const plan = groupByExpert(graph, t.chosen!, 4);
        const each = (name: string) => [0, 1, 2, 3].map((e) => t[`${name}${e}`]!);
        return expertLinear(graph, expertLinear(graph, t.x!, plan, each('up'), true), plan, each('down'), false);
      },
    },
    (at) =>
      slots.flatMap(({ expert, slot }) => {
        const token = Math.floor(slot / topK);
        const up = product(at.x!.slice(token * k, (token + 1) * k), at[`up${expert}`]!, k);
        return product(up, at[`down${expert}`]!, hidden);
      }),
  );
});

test.each([
  ['sigmoid', 0],
  ['softmax', 0],
  ['sigmoid', 2],
] as const)('the balance loss of %s affinities over windows of %i tokens (0: all)', async (scoring, window) => {
  const [tokens, experts] = [5, 21];
  const chosen = [0, 3, 3, 7, 20, 3, 1, 0, 3, 0];
  const loadsAround = (r: number) => {
    const first = window ? 2 * window * Math.floor(r / window) : 0;
    const slots = chosen.slice(first, window ? first + 2 * window : undefined);
    return Array.from({ length: experts }, (_, e) => (slots.filter((c) => c === e).length / slots.length) * experts);
  };
  await expectGradients(
    {
      inputs: {
        logits: { rows: tokens, cols: experts, values: noise(tokens * experts, 60) },
        chosen: { rows: tokens, cols: 2, values: chosen, dtype: 'i32' },
      },
      build: (graph, t) => balanceLoss(graph, t.logits!, t.chosen!, scoring, window),
    },
    ({ logits }) =>
      Array.from({ length: tokens }, (_, r) => {
        const row = logits!.slice(r * experts, (r + 1) * experts);
        const scores = row.map((x) => (scoring === 'sigmoid' ? 1 / (1 + Math.exp(-x)) : Math.exp(x)));
        const sum = scores.reduce((a, b) => a + b, 0);
        return dot(scores, loadsAround(r)) / sum;
      }),
  );
});

test('causal attention with a shared rotary key, documents kept apart', async () => {
  const shape = {
    heads: 2,
    kvHeads: 2,
    qkDim: 6,
    sharedDim: 2,
    vDim: 5,
    keyStride: 9,
    valueStride: 9,
    softmaxScale: 0.4,
  };
  const starts = [0, 0, 0, 3, 3, 3, 3];
  const rows = starts.length;
  const [qCols, kvCols] = [12, 18];
  await expectGradients(
    {
      inputs: {
        q: { rows, cols: qCols, values: noise(rows * qCols, 40) },
        kv: { rows, cols: kvCols, values: noise(rows * kvCols, 41) },
        shared: { rows, cols: 2, values: noise(rows * 2, 42) },
        starts: { rows, cols: 1, values: starts, dtype: 'i32' },
      },
      build: (graph, t) => causalAttention(graph, t.q!, t.kv!, t.shared!, columns(t.kv!, 4, 14), t.starts!, shape),
    },
    ({ q, kv, shared }) =>
      Array.from({ length: rows }, (_, r) =>
        [0, 1].flatMap((h) => {
          const scores: number[] = [];
          for (let s = starts[r]!; s <= r; s++) {
            const key = [...kv!.slice(s * kvCols + h * 9, s * kvCols + h * 9 + 4), ...shared!.slice(s * 2, s * 2 + 2)];
            scores.push(0.4 * dot(q!.slice(r * qCols + h * 6, r * qCols + h * 6 + 6), key));
          }
          const most = Math.max(...scores);
          const total = scores.reduce((sum, score) => sum + Math.exp(score - most), 0);
          return Array.from({ length: 5 }, (_, c) =>
            scores.reduce(
              (sum, score, j) =>
                sum + (Math.exp(score - most) / total) * kv![(starts[r]! + j) * kvCols + h * 9 + 4 + c]!,
              0,
            ),
          );
        }),
      ).flat(),
  );
});

test('cross-entropy after a head; rows without a target have no gradient', async () => {
  const [rows, k, vocab] = [4, 6, 13];
  const targets = [3, -1, 12, 0];
  await expectGradients(
    {
      inputs: {
        x: { rows, cols: k, values: noise(rows * k, 50) },
        targets: { rows, cols: 1, values: targets, dtype: 'i32' },
      },
      weights: { head: { rows: vocab, cols: k, values: noise(vocab * k, 51) } },
      build: (graph, t) => crossEntropy(graph, linear(graph, t.x!, t.head!), t.targets!),
    },
    ({ x, head }) => {
      const logits = product(x!, head!, k);
      return targets.map((target, r) => {
        if (target < 0) return 0;
        const row = logits.slice(r * vocab, (r + 1) * vocab);
        return Math.log(row.reduce((sum, logit) => sum + Math.exp(logit), 0)) - row[target]!;
      });
    },
  );
});

test('an operation without a gradient is refused by name', async () => {
  const graph = createGraph('f32');
  const x = own(rowsOf(null, 2), 4);
  const out = own(rowsOf(null, 2), 4);
  graph.ops.push({ kernel: 'measure_read', writes: [out], reads: [x], scalars: [] });
  expect(() => differentiate(graph, new Map([[out, x]]), new Map())).toThrow(
    'the operation "measure_read" has no gradient',
  );
});
