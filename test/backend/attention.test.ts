import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { compile } from '../../src/backend/compile.ts';
import {
  type CacheDType,
  type Compute,
  columns,
  createGraph,
  own,
  resident,
  rowsOf,
  storageBytes,
} from '../../src/backend/graph.ts';
import { allocate, setThreads, threads } from '../../src/backend/native.ts';
import {
  latentAttention,
  latentCacheCols,
  type Paging,
  pagedAttention,
  writeCache,
  writeLatent,
} from '../../src/backend/ops.ts';
import { E4M3_VALUES, float32ToE4m3 } from '../../src/numerics/e4m3.ts';
import { alsoUnderOtherInstructionSets } from './each-isa.ts';
import { noise, relativeError, runOps } from './run-op.ts';

alsoUnderOtherInstructionSets(import.meta.filename);

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

/** FlashMLA's fp8 row (its tests/quant.py): codes, a scale for each 128 of them, the rotary key in bf16. */
function flashMlaRow(key: Float32Array, rank: number): { bytes: Uint8Array; values: number[] } {
  const tiles = Math.ceil(rank / 128);
  const bytes = new Uint8Array(rank + 4 * tiles + 2 * (key.length - rank));
  const view = new DataView(bytes.buffer);
  const values = Array.from(key, asBf16);
  for (let tile = 0; tile < tiles; tile++) {
    const latent = key.subarray(tile * 128, Math.min(rank, (tile + 1) * 128));
    const most = latent.reduce((a, b) => Math.max(a, Math.abs(b)), 0);
    const scale = 2 ** Math.ceil(Math.log2(Math.max(most / 448, 1e-4)));
    view.setFloat32(rank + 4 * tile, scale, true);
    latent.forEach((value, i) => {
      const code = float32ToE4m3(value / scale);
      bytes[tile * 128 + i] = code === 0x80 ? 0 : code; // a zero keeps no sign
      values[tile * 128 + i] = E4M3_VALUES[code]! * scale;
    });
  }
  const words = new Uint32Array(Float32Array.from(values.slice(rank)).buffer);
  words.forEach((word, i) => {
    view.setUint16(rank + 4 * tiles + 2 * i, word >>> 16, true);
  });
  return { bytes, values };
}

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
function reference(shape: Shape, type: CacheDType, s: Sequence, first = 0): number[] {
  const cached = (x: Float32Array) => Array.from(type === 'bf16' ? x.map(asBf16) : x);
  const rowOf = (j: number) => s.keys.subarray(j * keyCols(shape), (j + 1) * keyCols(shape));
  const restored = () => Array.from({ length: s.length }, (_, j) => flashMlaRow(rowOf(j), shape.dim).values).flat();
  const keys = type === 'fp8' ? restored() : cached(s.keys);
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
  type: CacheDType,
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
    const byteLength = storageBytes(type, cacheRows, cols);
    const buffer = allocate(byteLength);
    new Uint8Array(buffer).fill(0xff); // not-a-number wherever nothing was written
    return resident(cacheRows, cols, type, { buffer, byteOffset: 0, byteLength });
  };
  const graph = createGraph(compute);
  const perToken = rowsOf('token');
  const keyCache = cache(kind === 'latent' ? latentCacheCols(type, dim, shape.ropeDim) : keyCols(shape));
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
  let out: ReturnType<typeof own>;
  if (kind === 'latent') {
    writeLatent(graph, columns(keys, 0, dim), columns(keys, dim, shape.ropeDim), paging.slots, keyCache);
    const layout = { queryHeadDim: queryHeadDim(shape), queryRopeOffset: ropeOffset, softmaxScale };
    const form = { heads, kvLoraRank: dim, ropeDim: shape.ropeDim, ...layout };
    out = latentAttention(graph, queries, moreQueries, keyCache, paging, form);
  } else {
    writeCache(graph, keys, paging.slots, keyCache);
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
  { kind: 'latent', heads: 3, kvHeads: 1, dim: 160, ropeDim: 32 },
  { kind: 'grouped', heads: 6, kvHeads: 2, dim: 20, ropeDim: 1 },
  { kind: 'grouped', heads: 4, kvHeads: 2, dim: 32, ropeDim: 1 },
  { kind: 'grouped', heads: 2, kvHeads: 2, dim: 16, ropeDim: 1 },
];

const cacheTypes = ({ kind }: Shape): CacheDType[] => ['f32', 'bf16', ...(kind === 'latent' ? (['fp8'] as const) : [])];

describe.each(shapes)('$kind attention of $heads heads of $dim over the paged cache', (shape) => {
  test.each(cacheTypes(shape))('is softmax(q · K) V over the %s rows of the sequence', async (type) => {
    const sequences = [makeSequence(shape, 133, 1), makeSequence(shape, 64, 9), makeSequence(shape, 1, 17)];
    const outputs = await run(shape, type, sequences, whole(sequences), 16);
    outputs.forEach((out, i) => {
      expect(relativeError(out, reference(shape, type, sequences[i]!))).toBeLessThan(2e-6);
    });
  });

  test.each(cacheTypes(shape))('fast compute over %s rows stays within the rounding of bf16', async (type) => {
    const sequence = makeSequence(shape, 133, 1);
    const [out] = await run(shape, type, [sequence], whole([sequence]), 16, 'fast');
    expect(relativeError(out!, reference(shape, type, sequence))).toBeLessThan(5e-3);
  });

  test('splits of a long context are put together', async () => {
    const sequence = makeSequence(shape, 1100, 5);
    const [out] = await run(shape, 'f32', [sequence], whole([sequence]), 32);
    const width = shape.heads * shape.dim;
    expect(relativeError(out!.subarray(1080 * width), reference(shape, 'f32', sequence, 1080))).toBeLessThan(2e-6);
  });

  test.each(cacheTypes(shape).slice(1))(
    '%s rows one by one, in any chunks and any blocks: the same bits',
    async (type) => {
      const sequence = makeSequence(shape, 531, 3);
      const [expected] = await run(shape, type, [sequence], whole([sequence]), 16, 'fast');
      const [single] = await run(shape, type, [sequence], oneByOne(sequence.length, 60), 64, 'fast');
      expectSameBits(single!, expected!);
      const cuts = fc.uniqueArray(fc.integer({ min: 1, max: sequence.length - 1 }), { maxLength: 8 });
      await fc.assert(
        fc.asyncProperty(
          cuts,
          fc.constantFrom(16, 48, 256),
          fc.integer({ min: 1, max: 3 }),
          async (at, block, count) => {
            const before = threads();
            setThreads(count);
            const edges = [0, ...at.sort((a, b) => a - b), sequence.length];
            const steps = edges.slice(1).map((to, i): Piece[] => [[0, edges[i]!, to]]);
            const [out] = await run(shape, type, [sequence], steps, block, 'fast');
            setThreads(before);
            expectSameBits(out!, expected!);
          },
        ),
        { numRuns: 12 },
      );
    },
  );

  test('what else is in the step changes no bit', async () => {
    const sequences = [makeSequence(shape, 90, 21), makeSequence(shape, 530, 22), makeSequence(shape, 40, 23)];
    const together = await run(shape, 'f32', sequences, whole(sequences), 16);
    for (const [i, sequence] of sequences.entries()) {
      const [alone] = await run(shape, 'f32', [sequence], whole([sequence]), 16);
      expectSameBits(together[i]!, alone!);
    }
  });
});

test.each(['f32', 'fast'] as const)(
  'what one fp8 row holds is read exactly, subnormal codes too (%s)',
  async (compute) => {
    const shape: Shape = { kind: 'latent', heads: 2, kvHeads: 1, dim: 160, ropeDim: 32 };
    const sequence = makeSequence(shape, 1, 7);
    sequence.keys.forEach((key, i) => {
      sequence.keys[i] = key * 4 ** -(i % 11);
    });
    const [out] = await run(shape, 'fp8', [sequence], whole([sequence]), 16, compute);
    const latent = flashMlaRow(sequence.keys, shape.dim).values.slice(0, shape.dim);
    expect(Array.from(out!, (x) => x + 0)).toEqual([...latent, ...latent].map((x) => x + 0));
  },
);

test.each([
  [512, 64, 656],
  [128, 32, 196],
  [80, 16, 116],
  [24, 6, 40],
])('an fp8 row of %i + %i values is the %i bytes of the published layout', async (rank, ropeDim, rowBytes) => {
  expect(latentCacheCols('fp8', rank, ropeDim)).toBe(rowBytes);
  const rows = 7;
  const keys = Float32Array.from(noise(rows * (rank + ropeDim), 11), (x, i) => x * 4 ** ((i % 13) - 9));
  keys.fill(0, 0, rank); // a latent of zeros
  const byteLength = rows * rowBytes;
  const buffer = allocate(byteLength);
  const cache = resident(rows, rowBytes, 'fp8', { buffer, byteOffset: 0, byteLength });
  const slots = Array.from({ length: rows }, (_, r) => rows - 1 - r);
  await runOps(
    { keys: { cols: rank + ropeDim, values: keys }, slots: { cols: 1, values: slots, dtype: 'i32' } },
    (graph, given) => {
      writeLatent(graph, columns(given.keys, 0, rank), columns(given.keys, rank, ropeDim), given.slots, cache);
      return {};
    },
  );
  for (let r = 0; r < rows; r++) {
    const stored = new Uint8Array(buffer, (rows - 1 - r) * rowBytes, rowBytes);
    const { bytes } = flashMlaRow(keys.subarray(r * (rank + ropeDim), (r + 1) * (rank + ropeDim)), rank);
    expect(Buffer.from(stored).equals(bytes)).toBe(true);
  }
});
