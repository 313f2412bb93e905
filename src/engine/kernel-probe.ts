/**
 * Products and latent attention by themselves, in shapes of no model in particular: chains of one kernel, each of which
 * reads what the one before wrote, over as much memory as a step of a model might touch before it comes back.
 */
import { compile, type Lengths, type OpTimes, type Program } from '../backend/compile.ts';
import {
  type CacheDType,
  type Compute,
  createGraph,
  type DType,
  own,
  type Region,
  resident,
  rowsOf,
  storageBytes,
  type Tensor,
} from '../backend/graph.ts';
import { allocate } from '../backend/native.ts';
import { expertLinear, latentAttention, latentCacheCols } from '../backend/ops.ts';

/** Products of `rows` rows each with weights [n, k], in one operation. */
export interface ProductRun {
  readonly format: 'fp8' | 'bf16' | 'f32';
  readonly products: number;
  readonly k: number;
  readonly n: number;
  readonly rows: number;
  /** Bytes that were read before the same weights were read again. */
  readonly poolBytes: number;
  readonly seconds: number;
}

/** Attention of `tokensEach` tokens of each of `sequences` sequences, after `start` others. */
export interface AttentionRun {
  readonly heads: number;
  readonly kvRank: number;
  readonly ropeDim: number;
  readonly sequences: number;
  readonly tokensEach: number;
  readonly start: number;
  readonly poolBytes: number;
  readonly seconds: number;
}

/** Something to measure again and again. */
export interface Probed<Run> {
  /** Every kind of operation in it once, each with its median time. */
  measure(): Promise<Run[]>;
}

const MIB = 2 ** 20;
const POOL_BYTES = 256 * MIB;
const MOST_OPS = 200;
const WARM_RUNS = 2;
const WARM_BYTES = 64 * MIB;

/** Memory with content: what was never written is one shared page of zeros. */
export function probePool(): ArrayBuffer {
  const pool = allocate(POOL_BYTES);
  // In every type a number near 0.01 or 1, none of them subnormal.
  new Uint8Array(pool).fill(0x3c);
  return pool;
}

const PACKED = { fp8: 'packed_fp8', bf16: 'packed_bf16', f32: 'packed_f32' } as const satisfies Record<string, DType>;

/** Number of products, k and n: of one and of several, narrow and wide, and both ways round. */
const NARROW = [
  [1, 128, 128],
  [1, 256, 256],
  [1, 1024, 128],
  [1, 512, 512],
  [8, 128, 256],
  [8, 64, 64],
] as const;
const WIDE = [1, 1024, 1024] as const;
const NEAR_MIB = 16;
const FAR_MIB = [64, 256];
const ROWS = [1, 4, 8, 16, 17, 32, 33, 48, 64, 128, 256, 512];
/** Beyond, products are bound by arithmetic, wherever their weights lie. */
const MOST_FAR_ROWS = 64;

export function productProbes(
  pool: ArrayBuffer,
  formats: readonly ProductRun['format'][],
  compute: Compute,
): Probed<ProductRun>[] {
  return formats.flatMap((format) => [
    ...NARROW.map((shape) => productProbe(pool, format, shape, NEAR_MIB, ROWS, compute)),
    productProbe(pool, format, WIDE, NEAR_MIB, ROWS, compute),
    ...(format === 'f32' ? [] : FAR_MIB).map((mib) => {
      const rows = ROWS.filter((each) => each <= MOST_FAR_ROWS);
      return productProbe(pool, format, WIDE, mib, rows, compute);
    }),
  ]);
}

function productProbe(
  pool: ArrayBuffer,
  format: ProductRun['format'],
  [products, width, other]: readonly [number, number, number],
  poolMib: number,
  rowCounts: readonly number[],
  compute: Compute,
): Probed<ProductRun> {
  const graph = createGraph(format === 'f32' ? 'f32' : compute);
  const dtype = PACKED[format];
  const shapes = [
    { k: width, n: other },
    { k: other, n: width },
  ];
  const bytes = storageBytes(dtype, other, width);
  const pairs = Math.max(1, Math.min(MOST_OPS / 2, Math.floor((poolMib * MIB) / (2 * products * bytes))));
  const total = rowsOf('token', products);
  const first = own(total, width);
  const [order, offsets] = [own(total, 1, 'i32'), own(rowsOf(null, products + 1), 1, 'i32')];
  const plan = { order, offsets, place: order, topK: 1 };
  const scales: Region = { buffer: pool, byteOffset: 0, byteLength: 4 * Math.ceil(bytes / 128) };
  let at = 0;
  let x: Tensor = first;
  for (let i = 0; i < 2 * pairs; i++) {
    const { k, n } = shapes[i % 2]!;
    const weights = Array.from({ length: products }, () => {
      const memory = { buffer: pool, byteOffset: at, byteLength: storageBytes(dtype, n, k) };
      at += memory.byteLength;
      return resident(n, k, dtype, memory, format === 'fp8' ? scales : null);
    });
    x = expertLinear(graph, x, plan, weights, false);
  }
  const program = compile(graph, { token: Math.max(...rowCounts), logit: 1, sequence: 1 }, [x]);
  program.f32(first).fill(1);
  return {
    async measure() {
      const runs: ProductRun[] = [];
      await warm(program, { token: rowCounts[0]! }, at);
      for (const rows of rowCounts) {
        program.i32(offsets).forEach((_, i, all) => {
          all[i] = i * rows;
        });
        const times = await program.profile({ token: rows });
        for (const [i, { k, n }] of shapes.entries()) {
          runs.push({ format, products, k, n, rows, poolBytes: at, seconds: medianSeconds(times, i, 2) });
        }
      }
      return runs;
    },
  };
}

/** Until the processor's caches hold what they can of a pool; of a larger one they hold little. */
async function warm(program: Program, lengths: Partial<Lengths>, poolBytes: number): Promise<void> {
  for (let i = 0; i < WARM_RUNS && poolBytes <= WARM_BYTES; i++) await program.run(lengths);
}

/** Of every `step`-th operation from `first`, without the very first, which waits for the threads to wake. */
function medianSeconds(times: readonly OpTimes[], first: number, step: number): number {
  const seconds = times.filter((_, i) => i > 0 && i % step === first).map(({ start, end }) => end - start);
  return seconds.sort((a, b) => a - b)[seconds.length >> 1]!;
}

const HEADS = [
  { heads: 8, kvRank: 96, ropeDim: 32 },
  { heads: 12, kvRank: 448, ropeDim: 64 },
  { heads: 24, kvRank: 256, ropeDim: 64 },
];
const NOPE_DIM = 64;
const BLOCK_TOKENS = 64;
const ATTENTION_MIB = [8, POOL_BYTES / MIB] as const;
const DECODED = [
  { sequences: 1, start: 256 },
  { sequences: 1, start: 4096 },
  { sequences: 4, start: 256 },
  { sequences: 4, start: 4096 },
  { sequences: 16, start: 256 },
  { sequences: 16, start: 2048 },
].map((each) => ({ ...each, tokensEach: 1 }));
const PREFILLED = [
  { tokensEach: 128, start: 0 },
  { tokensEach: 512, start: 0 },
  { tokensEach: 512, start: 4096 },
].map((each) => ({ ...each, sequences: 1 }));

export function attentionProbes(pool: ArrayBuffer, cacheDtype: CacheDType, compute: Compute): Probed<AttentionRun>[] {
  return HEADS.flatMap((heads) =>
    [
      ...DECODED.flatMap((step) => ATTENTION_MIB.map((mib) => ({ mib, ...step }))),
      ...PREFILLED.map((step) => ({ mib: ATTENTION_MIB[0], ...step })),
    ].map(({ mib, ...step }) => attentionProbe(pool, heads, step, mib, cacheDtype, compute)),
  );
}

function attentionProbe(
  pool: ArrayBuffer,
  heads: (typeof HEADS)[number],
  step: { readonly sequences: number; readonly tokensEach: number; readonly start: number },
  poolMib: number,
  cacheDtype: CacheDType,
  compute: Compute,
): Probed<AttentionRun> {
  const { sequences, tokensEach, start } = step;
  const graph = createGraph(compute);
  const blocks = Math.ceil((start + tokensEach) / BLOCK_TOKENS);
  const cols = latentCacheCols(cacheDtype, heads.kvRank, heads.ropeDim);
  const rows = sequences * blocks * BLOCK_TOKENS;
  const bytes = storageBytes(cacheDtype, rows, cols);
  const ops = Math.min(MOST_OPS, Math.max(2, Math.floor((poolMib * MIB) / bytes)));
  const perToken = () => own(rowsOf('token'), 1, 'i32');
  const paging = {
    slots: perToken(),
    positions: perToken(),
    sequences: perToken(),
    blockTable: own(rowsOf('sequence'), blocks, 'i32'),
    blockTokens: BLOCK_TOKENS,
  };
  const queries = own(rowsOf('token'), heads.heads * (NOPE_DIM + heads.ropeDim));
  const first = own(rowsOf('token'), heads.heads * heads.kvRank);
  let x: Tensor = first;
  for (let i = 0; i < ops; i++) {
    const cache = resident(rows, cols, cacheDtype, { buffer: pool, byteOffset: i * bytes, byteLength: bytes });
    x = latentAttention(graph, x, queries, cache, paging, {
      heads: heads.heads,
      kvLoraRank: heads.kvRank,
      ropeDim: heads.ropeDim,
      queryHeadDim: NOPE_DIM + heads.ropeDim,
      queryRopeOffset: NOPE_DIM,
      softmaxScale: 0.1,
    });
  }
  const lengths = { token: sequences * tokensEach, logit: 1, sequence: sequences };
  const program = compile(graph, lengths, [x]);
  for (const tensor of [first, queries]) program.f32(tensor).fill(1);
  const [positions, owners] = [program.i32(paging.positions), program.i32(paging.sequences)];
  for (let token = 0; token < lengths.token; token++) {
    positions[token] = start + (token % tokensEach);
    owners[token] = Math.floor(token / tokensEach);
  }
  program.i32(paging.blockTable).forEach((_, i, table) => {
    table[i] = i;
  });
  return {
    async measure() {
      if (tokensEach === 1) await warm(program, lengths, ops * bytes);
      const times = await program.profile(lengths);
      return [{ ...heads, ...step, poolBytes: ops * bytes, seconds: medianSeconds(times, 0, 1) }];
    },
  };
}
