import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compile } from '../../src/backend/compile.ts';
import { type Compute, createGraph, own, resident, rowsOf } from '../../src/backend/graph.ts';
import { allocate, setThreads, threads } from '../../src/backend/native.ts';
import { latentAttention, type Paging, pagedAttention, writeCache } from '../../src/backend/ops.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { noise, relativeError } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

type CacheType = 'f32' | 'bf16';

/** One sequence: what is cached at each position, and the queries there. */
interface Sequence {
  readonly length: number;
  readonly keys: Float32Array;
  readonly values: Float32Array;
  readonly queries: Float32Array;
  readonly moreQueries: Float32Array;
}

interface Shape {
  readonly kind: 'latent' | 'grouped';
  readonly heads: number;
  readonly kvHeads: number;
  /** Latent: kvLoraRank; grouped: headDim. */
  readonly dim: number;
  readonly ropeDim: number;
}

const ropeOffset = 3;
const softmaxScale = 0.3;
const keyCols = (s: Shape) => (s.kind === 'latent' ? s.dim + s.ropeDim : s.kvHeads * s.dim);
const queryHeadDim = (s: Shape) => ropeOffset + s.ropeDim;

function makeSequence(shape: Shape, length: number, seed: number): Sequence {
  const numbers = (cols: number, at: number, scale = 1) =>
    Float32Array.from(noise(length * cols, at), (x) => scale * x);
  return {
    length,
    keys: numbers(keyCols(shape), seed),
    values: numbers(shape.kvHeads * shape.dim, seed + 1),
    queries: numbers(shape.heads * shape.dim, seed + 2, 3),
    moreQueries: numbers(shape.heads * queryHeadDim(shape), seed + 3),
  };
}

const asBf16 = (x: number) => {
  const bits = new Uint32Array(Float32Array.of(x).buffer)[0]!;
  const rounded = ((bits + 0x7fff + ((bits >>> 16) & 1)) & 0xffff0000) >>> 0;
  return new Float32Array(Uint32Array.of(rounded).buffer)[0]!;
};

/** softmax(q · Kᵀ) V in float64, for one query over `count` positions. */
function attend64(q: number[], key: (j: number) => number[], value: (j: number) => number[], count: number): number[] {
  const scores = Array.from({ length: count }, (_, j) => key(j).reduce((sum, k, d) => sum + k * q[d]!, 0));
  const most = Math.max(...scores);
  const weights = scores.map((s) => Math.exp(s * softmaxScale - most * softmaxScale));
  const total = weights.reduce((a, b) => a + b);
  const out = value(0).map(() => 0);
  weights.forEach((w, j) => {
    value(j).forEach((v, c) => {
      out[c]! += (w / total) * v;
    });
  });
  return out;
}

/** Outputs of the positions from `first` on. */
function reference(shape: Shape, type: CacheType, s: Sequence, first = 0): number[] {
  const cached = (x: Float32Array) => Array.from(type === 'bf16' ? x.map(asBf16) : x);
  const keys = cached(s.keys);
  const values = cached(s.values);
  const { heads, dim, kind } = shape;
  const cols = keyCols(shape);
  const out: number[] = [];
  for (let t = first; t < s.length; t++) {
    for (let h = 0; h < heads; h++) {
      const q = [...s.queries.slice((t * heads + h) * dim, (t * heads + h + 1) * dim)];
      if (kind === 'latent') {
        const from = (t * heads + h) * queryHeadDim(shape) + ropeOffset;
        q.push(...s.moreQueries.slice(from, from + shape.ropeDim));
        const key = (j: number) => keys.slice(j * cols, (j + 1) * cols);
        out.push(...attend64(q, key, (j) => key(j).slice(0, dim), t + 1));
      } else {
        const group = Math.floor((h * shape.kvHeads) / heads);
        const head = (x: number[]) => (j: number) => x.slice(j * cols + group * dim, j * cols + (group + 1) * dim);
        out.push(...attend64(q, head(keys), head(values), t + 1));
      }
    }
  }
  return out;
}

/** Positions [from, to) of a sequence that enter in one step. */
type Piece = readonly [sequence: number, from: number, to: number];

/** Runs the steps over a fresh paged cache; returns each sequence's outputs [length, heads · dim]. */
async function run(
  shape: Shape,
  type: CacheType,
  sequences: readonly Sequence[],
  steps: readonly (readonly Piece[])[],
  blockTokens: number,
  compute: Compute = 'f32',
): Promise<Float32Array[]> {
  const { heads, dim, kind } = shape;
  const tokens = Math.max(...steps.map((step) => step.reduce((sum, [, from, to]) => sum + to - from, 0)));
  const blocksEach = Math.ceil(Math.max(...sequences.map((s) => s.length)) / blockTokens);
  const cacheRows = blocksEach * sequences.length * blockTokens;
  const cache = (cols: number) => {
    const byteLength = cacheRows * cols * (type === 'f32' ? 4 : 2);
    const buffer = allocate(byteLength);
    new Uint8Array(buffer).fill(0xff); // not-a-number wherever nothing was written
    return resident(cacheRows, cols, type, { buffer, byteOffset: 0, byteLength });
  };
  const graph = createGraph(compute);
  const perToken = rowsOf('token');
  const keyCache = cache(keyCols(shape));
  const keys = own(perToken, keyCols(shape));
  const values = own(perToken, shape.kvHeads * dim);
  const queries = own(perToken, heads * dim);
  const moreQueries = own(perToken, heads * queryHeadDim(shape));
  const paging: Paging = {
    slots: own(perToken, 1, 'i32'),
    positions: own(perToken, 1, 'i32'),
    sequences: own(perToken, 1, 'i32'),
    blockTable: own(rowsOf('sequence'), blocksEach, 'i32'),
    blockTokens,
  };
  writeCache(graph, keys, paging.slots, keyCache);
  let out: ReturnType<typeof own>;
  if (kind === 'latent') {
    const layout = { queryHeadDim: queryHeadDim(shape), queryRopeOffset: ropeOffset, softmaxScale };
    const form = { heads, kvLoraRank: dim, ropeDim: shape.ropeDim, ...layout };
    out = latentAttention(graph, queries, moreQueries, keyCache, paging, form);
  } else {
    const valueCache = cache(shape.kvHeads * dim);
    writeCache(graph, values, paging.slots, valueCache);
    const form = { heads, kvHeads: shape.kvHeads, headDim: dim, softmaxScale };
    out = pagedAttention(graph, queries, keyCache, valueCache, paging, form);
  }
  const inputs = [keys, values, queries, moreQueries, paging.slots, paging.positions, paging.sequences];
  const program = compile(graph, { token: tokens, logit: 0, sequence: sequences.length }, [
    ...inputs,
    paging.blockTable,
    out,
  ]);

  // blocks of the sequences interleaved and reversed, so that neither order nor neighbourhood is by chance right
  const block = (s: number, i: number) => (blocksEach - 1 - i) * sequences.length + s;
  const table = program.i32(paging.blockTable);
  sequences.forEach((_, s) => {
    for (let i = 0; i < blocksEach; i++) table[s * blocksEach + i] = block(s, i);
  });
  const outputs = sequences.map((s) => new Float32Array(s.length * heads * dim));
  for (const step of steps) {
    let row = 0;
    for (const [s, from, to] of step) {
      const sequence = sequences[s]!;
      const copy = (tensor: typeof keys, source: Float32Array) =>
        program.f32(tensor).set(source.subarray(from * tensor.cols, to * tensor.cols), row * tensor.cols);
      copy(keys, sequence.keys);
      copy(values, sequence.values);
      copy(queries, sequence.queries);
      copy(moreQueries, sequence.moreQueries);
      for (let position = from; position < to; position++, row++) {
        const slot = block(s, Math.floor(position / blockTokens)) * blockTokens + (position % blockTokens);
        program.i32(paging.slots)[row] = slot;
        program.i32(paging.positions)[row] = position;
        program.i32(paging.sequences)[row] = s;
      }
    }
    await program.run({ token: row, sequence: sequences.length });
    let done = 0;
    for (const [s, from, to] of step) {
      const width = heads * dim;
      outputs[s]!.set(program.f32(out).subarray(done * width, (done + to - from) * width), from * width);
      done += to - from;
    }
  }
  return outputs;
}

const whole = (sequences: readonly Sequence[]): Piece[][] => [sequences.map((s, i) => [i, 0, s.length])];

/** The last `count` positions in a step each, all before them in one. */
const oneByOne = (length: number, count: number): Piece[][] => [
  [[0, 0, length - count]],
  ...Array.from({ length: count }, (_, i): Piece[] => [[0, length - count + i, length - count + i + 1]]),
];

const bits = (x: Float32Array) => Buffer.from(x.buffer, x.byteOffset, x.byteLength);
const expectSameBits = (a: Float32Array, b: Float32Array) => expect(bits(a).equals(bits(b))).toBe(true);

const shapes: Shape[] = [
  { kind: 'latent', heads: 4, kvHeads: 1, dim: 24, ropeDim: 8 },
  { kind: 'latent', heads: 17, kvHeads: 1, dim: 16, ropeDim: 6 },
  { kind: 'latent', heads: 5, kvHeads: 1, dim: 80, ropeDim: 16 },
  { kind: 'grouped', heads: 6, kvHeads: 2, dim: 20, ropeDim: 1 },
  { kind: 'grouped', heads: 4, kvHeads: 2, dim: 32, ropeDim: 1 },
  { kind: 'grouped', heads: 2, kvHeads: 2, dim: 16, ropeDim: 1 },
];

describe.each(shapes)('$kind attention of $heads heads of $dim over the paged cache', (shape) => {
  test.each(['f32', 'bf16'] as const)('is softmax(q · K) V over the %s rows of the sequence', async (type) => {
    const sequences = [makeSequence(shape, 133, 1), makeSequence(shape, 64, 9), makeSequence(shape, 1, 17)];
    const outputs = await run(shape, type, sequences, whole(sequences), 16);
    outputs.forEach((out, i) => {
      expect(relativeError(out, reference(shape, type, sequences[i]!))).toBeLessThan(2e-6);
    });
  });

  test('fast compute stays within the rounding of bf16', async () => {
    const sequence = makeSequence(shape, 133, 1);
    const [out] = await run(shape, 'bf16', [sequence], whole([sequence]), 16, 'fast');
    expect(relativeError(out!, reference(shape, 'bf16', sequence))).toBeLessThan(5e-3);
  });

  test('splits of a long context are put together', async () => {
    const sequence = makeSequence(shape, 1100, 5);
    const [out] = await run(shape, 'f32', [sequence], whole([sequence]), 32);
    const width = shape.heads * shape.dim;
    expect(relativeError(out!.subarray(1080 * width), reference(shape, 'f32', sequence, 1080))).toBeLessThan(2e-6);
  });

  test('one by one, in any chunks and any blocks: the same bits', async () => {
    const sequence = makeSequence(shape, 531, 3);
    const [expected] = await run(shape, 'bf16', [sequence], whole([sequence]), 16, 'fast');
    const [single] = await run(shape, 'bf16', [sequence], oneByOne(sequence.length, 60), 64, 'fast');
    expectSameBits(single!, expected!);
    const cuts = fc.uniqueArray(fc.integer({ min: 1, max: sequence.length - 1 }), { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(cuts, fc.constantFrom(16, 48, 256), fc.integer({ min: 1, max: 3 }), async (at, block, count) => {
        const before = threads();
        setThreads(count);
        const edges = [0, ...at.sort((a, b) => a - b), sequence.length];
        const steps = edges.slice(1).map((to, i): Piece[] => [[0, edges[i]!, to]]);
        const [out] = await run(shape, 'bf16', [sequence], steps, block, 'fast');
        setThreads(before);
        expectSameBits(out!, expected!);
      }),
      { numRuns: 12 },
    );
  });

  test('what else is in the step changes no bit', async () => {
    const sequences = [makeSequence(shape, 90, 21), makeSequence(shape, 530, 22), makeSequence(shape, 40, 23)];
    const together = await run(shape, 'f32', sequences, whole(sequences), 16);
    for (const [i, sequence] of sequences.entries()) {
      const [alone] = await run(shape, 'f32', [sequence], whole([sequence]), 16);
      expectSameBits(together[i]!, alone!);
    }
  });
});
