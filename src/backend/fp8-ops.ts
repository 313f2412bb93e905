/**
 * The operations of FP8 training (DeepSeek-V3 report §3.3): both operands of a product are e4m3 codes with scales, and
 * sums over each 128 of the depth are scaled and added in FP32. The kernels are native/kernels/fp8*.h.
 */
import { type Graph, own, rowsOf, type Tensor, temp } from './graph.ts';

/** A tensor in tiles of 1 × 128: codes fp8 [R, k] and scales f32 [R, ceil(k/128)]. */
export interface Quantised {
  readonly codes: Tensor;
  readonly scales: Tensor;
}

/** The tokens that each expert has: slots in its order, and where it begins. */
export interface Slots {
  readonly order: Tensor;
  readonly offsets: Tensor;
  /** Slots of a token, to gather its row by, or 0 for rows that lie in the order already. */
  readonly topK: number;
}

/** What a graph of FP8 training has quantised. */
export interface Fp8 {
  /** Scales are the next powers of two, so that tiles can be turned without a second error. */
  readonly powersOfTwo: boolean;
  /** Of a run. */
  readonly tokens: number;
  /** One for each tensor, whatever number of products read it. */
  readonly quantised: Map<Tensor, Quantised>;
  /** Inputs in tiles along the tokens, by their codes or numbers and the experts' order. */
  readonly turned: Map<Tensor, Map<Tensor | null, Turned>>;
  /** Tensors that a backward pass keeps in FP32 anyway: weight gradients take them as they are. */
  readonly kept: Set<Tensor>;
  /** Results of FP8 products, and a packed weight of each. */
  readonly products: Map<Tensor, Tensor>;
  readonly watched: Watched[];
}

/** A quantisation: its flag, i32 [1, 1], is 1 after a run in which it met a number that is not finite. */
export interface Watched {
  readonly flag: Tensor;
  readonly what: 'input' | 'gradient of the output' | 'output';
  /** The packed weight of the product concerned. */
  readonly weight: Tensor;
}

export function createFp8(powersOfTwo: boolean, tokens: number): Fp8 {
  return {
    ...{ powersOfTwo, tokens },
    ...{ quantised: new Map(), turned: new Map(), kept: new Set(), products: new Map(), watched: [] },
  };
}

/**
 * Tiles of x, scaled online so that the greatest magnitude of each becomes 448. Numbers that are not finite count as
 * 0 and raise the flag.
 */
export function quantise(graph: Graph, fp8: Fp8, x: Tensor, what: Watched['what'], weight: Tensor): Quantised {
  const known = fp8.quantised.get(x);
  if (known) return known;
  const { rows } = x.storage;
  const tiles = { codes: temp(rows, x.cols, 'fp8'), scales: temp(rows, Math.ceil(x.cols / 128)) };
  const flag = own(rowsOf(null, 1), 1, 'i32');
  const writes = [tiles.codes, tiles.scales, flag];
  graph.ops.push({ kernel: 'fp8_quantise', writes, reads: [x], scalars: [fp8.powersOfTwo ? 1 : 0] });
  fp8.quantised.set(x, tiles);
  fp8.watched.push({ flag, what, weight });
  return tiles;
}

/** An operand of a weight gradient in tiles of 128 tokens, laid out by native/kernels/fp8_outer.h. */
interface Turned {
  readonly numbers: Tensor;
  readonly scales: Tensor;
}

const tokensOf = (fp8: Fp8, { storage: { rows } }: Tensor) => rows.times * (rows.axis === null ? 1 : fp8.tokens);

/** @param role `dy`: its columns become rows of the weight gradient; `x`: its columns */
function turn(
  graph: Graph,
  fp8: Fp8,
  values: Tensor,
  scales: Tensor | null,
  role: 'dy' | 'x',
  slots: Slots | null,
): Turned {
  const rows = tokensOf(fp8, slots?.order ?? values);
  const spans = slots ? slots.offsets.storage.rows.times - 1 : 1;
  const tiles = Math.ceil(rows / 128) + Math.min(spans, rows) - 1;
  const cols = Math.ceil(values.cols / 16) * 16;
  const turned = { numbers: temp(rowsOf(null, tiles * 128), cols, 'bf16'), scales: temp(rowsOf(null, tiles), cols) };
  graph.ops.push({
    kernel: 'fp8_turn',
    writes: [turned.numbers, turned.scales],
    reads: [values, scales, slots?.order ?? null, slots?.offsets ?? null],
    scalars: [fp8.powersOfTwo ? 1 : 0, role === 'dy' ? 1 : 0, rows, slots?.topK ?? 0],
  });
  return turned;
}

/**
 * Adds dyᵀ · x to the gradients of one weight, or of each expert's, from tiles along the tokens (V3 report §3.3.2).
 * @param x FP32 numbers, or tiles along the columns
 */
export function fp8Outer(
  graph: Graph,
  fp8: Fp8,
  gradients: readonly Tensor[],
  dy: Tensor,
  x: Tensor | Quantised,
  slots: Slots | null,
): void {
  const [values, scales] = 'codes' in x ? [x.codes, x.scales] : [x, null];
  const known = fp8.turned.get(values) ?? new Map<Tensor | null, Turned>();
  fp8.turned.set(values, known);
  const gathered = slots?.topK ? slots.order : null;
  const xTurned = known.get(gathered) ?? turn(graph, fp8, values, scales, 'x', slots);
  known.set(gathered, xTurned);
  const dyTurned = turn(graph, fp8, dy, null, 'dy', slots && { ...slots, topK: 0 });
  graph.ops.push({
    kernel: 'fp8_outer',
    writes: gradients,
    reads: [dyTurned.numbers, dyTurned.scales, xTurned.numbers, xTurned.scales, slots?.offsets ?? null],
    scalars: [tokensOf(fp8, dy), gradients.length],
  });
}

/** The numbers that the tiles of x stand for, or x itself where it has none. */
export function restored(graph: Graph, x: Tensor): Tensor {
  const tiles = graph.fp8?.quantised.get(x);
  if (!tiles) return x;
  const out = temp(x.storage.rows, x.cols);
  graph.ops.push({ kernel: 'fp8_restore', writes: [out], reads: [tiles.codes, tiles.scales], scalars: [] });
  return out;
}

/**
 * A master weight as e4m3 in blocks of 128 × 128, in the packed layout and again as its transpose.
 * @param master f32 [n, k]  @param packed packed_fp8 [n, k]  @param transposed packed_fp8 [k, n]; both with scales
 */
export function quantiseWeight(
  graph: Graph,
  powersOfTwo: boolean,
  master: Tensor,
  packed: Tensor,
  transposed: Tensor,
): Tensor {
  const flag = own(rowsOf(null, 1), 1, 'i32');
  const writes = [packed, scalesOf(packed), transposed, scalesOf(transposed), flag];
  graph.ops.push({ kernel: 'fp8_quantise_weight', writes, reads: [master], scalars: [powersOfTwo ? 1 : 0] });
  return flag;
}

/** The block scales of a packed_fp8 weight as a tensor, f32 [ceil(n/128), ceil(k/128)]. */
function scalesOf({ storage }: Tensor): Tensor {
  if (!storage.scales) throw new Error('an FP8 weight without scales');
  const cols = Math.ceil(storage.cols / 128);
  const rows = rowsOf(null, Math.ceil(storage.rows.times / 128));
  return { storage: { rows, cols, dtype: 'f32', memory: storage.scales, scales: null }, offset: 0, cols };
}
