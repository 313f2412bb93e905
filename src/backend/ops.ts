/**
 * The operations a model is written in. Each adds one op to the graph and returns what it writes.
 * Shapes: R is a tensor's rows (a multiple of the token axis), k, n, d are columns. All activations are f32.
 * The kernels are in native/kernels/; the order of views is `writes` then `reads` as listed here.
 */
import { type Fp8, quantise } from './fp8-ops.ts';
import {
  type CacheDType,
  type Compute,
  ELEMENT_BYTES,
  type Graph,
  type Rows,
  rowsOf,
  type Tensor,
  temp,
} from './graph.ts';

function append(
  graph: Graph,
  kernel: string,
  writes: (Tensor | null)[],
  reads: (Tensor | null)[],
  scalars: number[] = [],
): void {
  graph.ops.push({ kernel, writes, reads, scalars });
}

class ShapeError extends Error {
  override name = 'ShapeError';
}

function expectCols(what: string, tensor: Tensor, cols: number): void {
  if (tensor.cols !== cols) throw new ShapeError(`${what} has ${tensor.cols} columns, expected ${cols}`);
}

/** Rows of `table` (f32, bf16 or f16 [vocab, hidden]) chosen by `ids` i32 [R, 1]. @returns f32 [R, hidden] */
export function embed(graph: Graph, ids: Tensor, table: Tensor): Tensor {
  const out = temp(ids.storage.rows, table.cols);
  append(graph, 'embed', [out], [ids, table]);
  return out;
}

/**
 * Root-mean-square norm over each group of `weight.cols` columns: x · rsqrt(mean(x²) + eps) · weight.
 * @param x f32 [R, groups · d]  @param weight f32 [1, d]
 */
export function rmsNorm(graph: Graph, x: Tensor, weight: Tensor, eps: number): Tensor {
  if (x.cols % weight.cols !== 0) throw new ShapeError(`norm of ${weight.cols} over ${x.cols} columns`);
  const out = temp(x.storage.rows, x.cols);
  append(graph, 'rms_norm', [out], [x, weight], [eps]);
  return out;
}

/**
 * y = x · Wᵀ + bias. One chain of sums over k for each output (FP8: one for each 128 of k, scaled, then added),
 * so y does not depend on the number of rows or threads.
 * @param x f32 [R, k]  @param weight packed [n, k]  @param bias f32 [1, n] or null
 * @param compute `f32` keeps x as it is; `fast` rounds x to bf16 (router and other sensitive parts pass `f32`)
 */
export function linear(
  graph: Graph,
  x: Tensor,
  weight: Tensor,
  bias: Tensor | null = null,
  compute: Compute = graph.compute,
): Tensor {
  expectCols('input of the product', x, weight.cols);
  const out = temp(x.storage.rows, weight.storage.rows.times);
  const fp8 = fp8Of(graph, weight);
  if (fp8) {
    const { codes, scales } = quantise(graph, fp8, x, 'input', weight);
    append(graph, 'fp8_linear', [out], [codes, scales, weight, bias], [0]);
    fp8.products.set(out, weight);
    return out;
  }
  append(graph, 'linear', [out], [x, weight, bias], [compute === 'fast' ? 1 : 0, 0]);
  return out;
}

function fp8Of(graph: Graph, weight: Tensor): Fp8 | null {
  return weight.storage.dtype === 'packed_fp8' ? graph.fp8 : null;
}

export interface RopeLayout {
  readonly heads: number;
  /** Columns of one head; the rotated part is [offset, offset + 2 · frequencies). */
  readonly headDim: number;
  readonly offset: number;
  /** DeepSeek pairs (2i, 2i+1); Qwen and Llama pair (i, i + d/2). */
  readonly interleaved: boolean;
  /** Factor on cos and sin (YaRN's magnitude). */
  readonly magnitude: number;
}

/**
 * Rotary position embedding (RoFormer, eq. 15; interleaved order kept as in the checkpoint).
 * @param x f32 [R, heads · headDim]  @param positions i32 [R, 1]  @param frequencies f32 [1, d/2]
 * @returns a copy of x, its rotary part turned by position · frequency
 */
export function rope(graph: Graph, x: Tensor, positions: Tensor, frequencies: Tensor, layout: RopeLayout): Tensor {
  expectCols('input of rope', x, layout.heads * layout.headDim);
  const out = temp(x.storage.rows, x.cols);
  const { heads, headDim, offset, interleaved, magnitude } = layout;
  append(
    graph,
    'rope',
    [out],
    [x, positions, frequencies],
    [heads, headDim, offset, interleaved ? 1 : 0, magnitude, 1],
  );
  return out;
}

/** silu(gate) · up (SwiGLU). f32 [R, n] each. FP8 training keeps both as tiles for the backward pass (V3 report §3.3.3). */
export function siluMul(graph: Graph, gate: Tensor, up: Tensor): Tensor {
  expectCols('up', up, gate.cols);
  const out = temp(gate.storage.rows, gate.cols);
  append(graph, 'silu_mul', [out], [gate, up]);
  for (const x of [gate, up]) {
    const weight = graph.fp8?.products.get(x);
    if (graph.fp8 && weight) quantise(graph, graph.fp8, x, 'output', weight);
  }
  return out;
}

/** a + b, f32 [R, n]. */
export function add(graph: Graph, a: Tensor, b: Tensor): Tensor {
  expectCols('second term', b, a.cols);
  const out = temp(a.storage.rows, a.cols);
  append(graph, 'add', [out], [a, b]);
  return out;
}

/** Columns of a, then of b. */
export function concat(graph: Graph, a: Tensor, b: Tensor): Tensor {
  const out = temp(a.storage.rows, a.cols + b.cols);
  append(graph, 'concat', [out], [a, b]);
  return out;
}

export interface Routing {
  readonly topK: number;
  readonly groups: number;
  readonly topGroups: number;
  readonly scoring: 'sigmoid' | 'softmax';
  /** How a group is scored: the sum of its two best (V3, noaux_tc) or its best (V2, group_limited_greedy). */
  readonly groupScore: 'top2' | 'max';
  readonly normalise: boolean;
  readonly scale: number;
}

export interface Routed {
  /** i32 [R, topK], by falling selection score; ties go to the lower index. */
  readonly experts: Tensor;
  /** f32 [R, topK], mixture weights in the same order. */
  readonly weights: Tensor;
}

/**
 * Router of DeepSeek-V3 (report §2.1.2, eq. 12–16) and V2: affinities from logits; the bias moves the selection
 * and never the weights; only the best groups take part; weights optionally normalised (+1e-20), then scaled.
 * @param logits f32 [R, experts]  @param bias f32 [1, experts] or null
 */
export function routeTokens(graph: Graph, logits: Tensor, bias: Tensor | null, routing: Routing): Routed {
  const { topK, groups, topGroups, scoring, groupScore, normalise, scale } = routing;
  if (logits.cols % groups !== 0) throw new ShapeError(`${logits.cols} experts in ${groups} groups`);
  const experts = temp(logits.storage.rows, topK, 'i32');
  const weights = temp(logits.storage.rows, topK);
  const scalars = [
    groups,
    topGroups,
    scoring === 'sigmoid' ? 1 : 0,
    groupScore === 'top2' ? 1 : 0,
    normalise ? 1 : 0,
    scale,
  ];
  append(graph, 'route_tokens', [experts, weights], [logits, bias], scalars);
  return { experts, weights };
}

/** Slots (token · topK + j) sorted by expert, then by slot: the order in which grouped products run. */
export interface ExpertPlan {
  /** i32 [R · topK, 1]: slot at each sorted place. */
  readonly order: Tensor;
  /** i32 [R · topK, 1]: sorted place of each slot. */
  readonly place: Tensor;
  /** i32 [experts + 1, 1]: first sorted place of each expert. */
  readonly offsets: Tensor;
  readonly topK: number;
}

/** Counting sort of the routed slots. @param experts i32 [R, topK] */
export function groupByExpert(graph: Graph, experts: Tensor, expertCount: number): ExpertPlan {
  const { axis, times } = experts.storage.rows;
  const slots = rowsOf(axis, times * experts.cols);
  const order = temp(slots, 1, 'i32');
  const place = temp(slots, 1, 'i32');
  const offsets = temp(rowsOf(null, expertCount + 1), 1, 'i32');
  append(graph, 'group_by_expert', [order, place, offsets], [experts]);
  return { order, place, offsets, topK: experts.cols };
}

/**
 * Each token's part of the auxiliary balance loss of its window (DeepSeek-V3 report eq. 17–20 for a window of one
 * sequence; GShard §2.2 and Switch Transformer eq. 4 for the whole batch): Σ_e f_e · p_e, f_e being the expert's load
 * over the mean load and p_e the token's affinity over the sum of its affinities. 1 when balanced.
 * @param logits f32 [R, experts] of the router  @param experts i32 [R, topK] of the same routing
 * @param window rows of a sequence, or 0 for all rows  @returns f32 [R, 1]
 */
export function balanceLoss(
  graph: Graph,
  logits: Tensor,
  experts: Tensor,
  scoring: Routing['scoring'],
  window: number,
): Tensor {
  const out = temp(logits.storage.rows, 1);
  append(graph, 'balance_loss', [out], [logits, experts], [scoring === 'sigmoid' ? 1 : 0, window]);
  return out;
}

/** −Σ p · ln p of each token's affinities over their sum, in nats. @param logits f32 [R, experts]  @returns f32 [R, 1] */
export function routerEntropy(graph: Graph, logits: Tensor, scoring: Routing['scoring']): Tensor {
  const out = temp(logits.storage.rows, 1);
  append(graph, 'router_entropy', [out], [logits], [scoring === 'sigmoid' ? 1 : 0]);
  return out;
}

/**
 * Grouped product: sorted row s is x[token of s] · W_eᵀ (gather) or x[s] · W_eᵀ, e being the expert of place s.
 * Each expert's weights are read once; experts with no token are not touched.
 * @param x f32 [R, k] with gather, else f32 [R · topK, k]  @param weights packed [n, k], one for each expert
 * @returns f32 [R · topK, n] in sorted order
 */
export function expertLinear(
  graph: Graph,
  x: Tensor,
  plan: ExpertPlan,
  weights: readonly Tensor[],
  gather: boolean,
): Tensor {
  const first = weights[0]!;
  expectCols('input of the experts', x, first.cols);
  const out = temp(plan.order.storage.rows, first.storage.rows.times);
  const fp8 = fp8Of(graph, first);
  if (fp8) {
    const { codes, scales } = quantise(graph, fp8, x, 'input', first);
    const reads = [codes, scales, plan.order, plan.offsets, ...weights];
    append(graph, 'fp8_expert_linear', [out], reads, [gather ? plan.topK : 0, 0]);
    fp8.products.set(out, first);
    return out;
  }
  const flags = [graph.compute === 'fast' ? 1 : 0, gather ? plan.topK : 0, 0];
  append(graph, 'expert_linear', [out], [x, plan.order, plan.offsets, ...weights], flags);
  return out;
}

/** Sum over a token's slots, in slot order, of weight · expert output. @returns f32 [R, n] */
export function combineExperts(graph: Graph, sorted: Tensor, plan: ExpertPlan, weights: Tensor): Tensor {
  const out = temp(weights.storage.rows, sorted.cols);
  append(graph, 'combine_experts', [out], [sorted, plan.place, weights]);
  return out;
}

/**
 * One product for each head: y[:, h · n + j] = Σ_k x[:, h · headDim + offset + k] · W_h[j, k].
 * Absorbs kv_b_proj into queries and outputs (DeepSeek-V2 report, §2.1.2).
 * @param x f32 [R, heads · headDim]  @param weights packed [n, k], one for each head
 */
export function headLinear(
  graph: Graph,
  x: Tensor,
  weights: readonly Tensor[],
  headDim: number,
  offset: number,
): Tensor {
  expectCols('input of the heads', x, weights.length * headDim);
  const out = temp(x.storage.rows, weights.length * weights[0]!.storage.rows.times);
  append(graph, 'head_linear', [out], [x, ...weights], [graph.compute === 'fast' ? 1 : 0, headDim, offset]);
  return out;
}

/** Where the tokens of a step live in a paged cache. */
export interface Paging {
  /** i32 [tokens, 1]: cache row that receives each token. */
  readonly slots: Tensor;
  /** i32 [tokens, 1]: position in its sequence; a token sees positions 0..its own. */
  readonly positions: Tensor;
  /** i32 [tokens, 1]: row of blockTable. */
  readonly sequences: Tensor;
  /** i32 [sequence, maxBlocks]: block numbers; cache row = block · blockTokens + position mod blockTokens. */
  readonly blockTable: Tensor;
  readonly blockTokens: number;
}

/** Columns of a latent cache: values, or in FP8 the bytes of FlashMLA's layout (native/kernels/latent_row.h). */
export function latentCacheCols(dtype: CacheDType, kvLoraRank: number, ropeDim: number): number {
  if (dtype !== 'fp8') return kvLoraRank + ropeDim;
  return kvLoraRank + Math.ceil(kvLoraRank / 128) * ELEMENT_BYTES.f32 + ropeDim * ELEMENT_BYTES.bf16;
}

/**
 * Writes latent [R, kvLoraRank] and sharedKey [R, ropeDim] to the rows `slots` of `cache`, f32 or bf16 [cacheRows,
 * kvLoraRank + ropeDim], rounded to its type; or fp8 [cacheRows, `latentCacheCols`]: the latent in e4m3 with a scale for
 * each 128 values (the least power of two by which they keep within 448, at least 1e-4), the key in bf16.
 */
export function writeLatent(graph: Graph, latent: Tensor, sharedKey: Tensor, slots: Tensor, cache: Tensor): void {
  expectCols('cached row', cache, latentCacheCols(cache.storage.dtype as CacheDType, latent.cols, sharedKey.cols));
  append(graph, 'write_latent', [cache], [latent, sharedKey, slots]);
}

/** Writes x [R, width] to the rows `slots` of `cache` (f32 or bf16 [cacheRows, width]), rounded to its type. */
export function writeCache(graph: Graph, x: Tensor, slots: Tensor, cache: Tensor): void {
  expectCols('cached row', x, cache.cols);
  append(graph, 'write_cache', [cache], [x, slots]);
}

/**
 * Scratch for the partial sums of splits of 512 positions, so that few tokens with long contexts still occupy all
 * threads. Where it does not suffice a thread computes a token's splits one after another, with the same result.
 */
function splitPartials(
  { blockTable, blockTokens }: Paging,
  groups: number,
  groupHeads: number,
  valueDim: number,
): Tensor {
  const splits = Math.ceil((blockTable.cols * blockTokens) / 512);
  const rows = Math.max(64, 2 * splits) * groups * Math.ceil(groupHeads / 16);
  return temp(rowsOf(null, rows), 16 * (valueDim + 2));
}

export interface LatentHeads {
  readonly heads: number;
  readonly kvLoraRank: number;
  readonly ropeDim: number;
  /** Columns of one head in the rotated queries, and where its rotary part begins. */
  readonly queryHeadDim: number;
  readonly queryRopeOffset: number;
  readonly softmaxScale: number;
}

/**
 * Absorbed latent attention (DeepSeek-V2 report, §2.1): score = qLatent · c + qRope · kRope over cached rows
 * [c | kRope]; each cached latent is read once for all heads. Softmax runs over fixed spans of positions,
 * combined in order of position, whatever the block size or the number of threads. With `fast` compute and a bf16 or fp8
 * cache, queries and probabilities are rounded to bf16 where the processor multiplies pairs of them.
 * @param qLatent f32 [R, heads · kvLoraRank]  @param queries f32 [R, heads · queryHeadDim]
 * @returns f32 [R, heads · kvLoraRank]
 */
export function latentAttention(
  graph: Graph,
  qLatent: Tensor,
  queries: Tensor,
  cache: Tensor,
  paging: Paging,
  shape: LatentHeads,
): Tensor {
  const out = temp(qLatent.storage.rows, shape.heads * shape.kvLoraRank);
  const { heads, kvLoraRank, ropeDim, queryHeadDim, queryRopeOffset, softmaxScale } = shape;
  append(
    graph,
    'latent_attention',
    [out, splitPartials(paging, 1, heads, kvLoraRank)],
    [qLatent, queries, cache, paging.positions, paging.sequences, paging.blockTable],
    [
      heads,
      kvLoraRank,
      ropeDim,
      queryHeadDim,
      queryRopeOffset,
      softmaxScale,
      paging.blockTokens,
      graph.compute === 'fast' ? 1 : 0,
    ],
  );
  return out;
}

export interface AttentionHeads {
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  readonly softmaxScale: number;
}

/**
 * Grouped-query attention over a paged cache; head h reads key/value head ⌊h · kvHeads / heads⌋.
 * @param queries f32 [R, heads · headDim]  @param keys, values  f32 or bf16 [cacheRows, kvHeads · headDim]
 * @returns f32 [R, heads · headDim]
 */
export function pagedAttention(
  graph: Graph,
  queries: Tensor,
  keys: Tensor,
  values: Tensor,
  paging: Paging,
  shape: AttentionHeads,
): Tensor {
  const { heads, kvHeads, headDim, softmaxScale } = shape;
  const out = temp(queries.storage.rows, heads * headDim);
  append(
    graph,
    'paged_attention',
    [out, splitPartials(paging, kvHeads, heads / kvHeads, headDim)],
    [queries, keys, values, paging.positions, paging.sequences, paging.blockTable],
    [heads, kvHeads, headDim, softmaxScale, paging.blockTokens, graph.compute === 'fast' ? 1 : 0],
  );
  return out;
}

export interface CausalHeads {
  readonly heads: number;
  readonly kvHeads: number;
  /** Columns of one query/key head, `sharedDim` last ones of the key included. */
  readonly qkDim: number;
  /** Columns at the end of every key head that come from `sharedKeys` (MLA's rotary key), or 0. */
  readonly sharedDim: number;
  readonly vDim: number;
  /** Columns from one head to the next in `keys` and `values` (equal to its width when packed tightly). */
  readonly keyStride: number;
  readonly valueStride: number;
  readonly softmaxScale: number;
}

/**
 * Causal attention of whole sequences without a cache, for training.
 * Row r attends to rows starts[r]..r (so packed documents do not see each other). With `fast` compute the factors of
 * all products are rounded to bf16 where the processor multiplies pairs of them.
 * @param queries f32 [R, heads · qkDim]  @param keys f32 [R, …] head h at h · keyStride
 * @param sharedKeys f32 [R, sharedDim] or null  @param values f32 [R, …] head h at h · valueStride
 * @param starts i32 [R, 1]
 * @returns out f32 [R, heads · vDim]; logSums f32 [R, heads] = log Σ exp(score), for the backward pass
 */
export function causalAttention(
  graph: Graph,
  queries: Tensor,
  keys: Tensor,
  sharedKeys: Tensor | null,
  values: Tensor,
  starts: Tensor,
  shape: CausalHeads,
): Tensor {
  const { heads, kvHeads, qkDim, sharedDim, vDim, keyStride, valueStride, softmaxScale } = shape;
  const rows: Rows = queries.storage.rows;
  const out = temp(rows, heads * vDim);
  const logSums = temp(rows, heads);
  graph.fp8?.kept.add(out);
  append(
    graph,
    'causal_attention',
    [out, logSums],
    [queries, keys, sharedKeys, values, starts],
    [heads, kvHeads, qkDim, sharedDim, vDim, keyStride, valueStride, softmaxScale, graph.compute === 'fast' ? 1 : 0],
  );
  return out;
}

/** Rows `index` (i32 [logit, 1]) of x: the positions whose logits are wanted. @returns f32 [logit, n] */
export function selectRows(graph: Graph, x: Tensor, index: Tensor): Tensor {
  const out = temp(index.storage.rows, x.cols);
  append(graph, 'select_rows', [out], [x, index]);
  return out;
}

/**
 * A guess of the token that the sampler would draw from each row of logits, at its temperature, top p, top k and random
 * number, to the precision of FP32. For proposals alone: the sampler decides.
 * @param settings f32 [R, 4]: temperature (0 takes the most probable), top p, top k (0 keeps all), a number in [0, 1)
 * @returns i32 [R, 1]
 */
export function drawTokens(graph: Graph, logits: Tensor, settings: Tensor): Tensor {
  expectCols('settings of a draw', settings, 4);
  const out = temp(logits.storage.rows, 1, 'i32');
  append(graph, 'draw_tokens', [out], [logits, settings]);
  return out;
}

/** Where a draft begins and how it is drawn; `followGuesses` fills it. */
export interface DraftStart {
  /** i32 [tokens, 1]: the token behind each row; filled for rows of the spans alone. */
  readonly nextIds: Tensor;
  /** i32 [R, 1] each: the row of the last token that is right, and its position. */
  readonly index: Tensor;
  readonly positions: Tensor;
  /** f32 [R, 4]: of each drafted token, for `drawTokens`. */
  readonly settings: readonly Tensor[];
  /** Of each drafted token but the last: its position and its row of the cache, i32 [R, 1] each. */
  readonly deeper: readonly { readonly positions: Tensor; readonly slots: Tensor }[];
}

/**
 * Starts drafts behind the tokens of a step before the sampler has drawn: the guesses stand for what it will draw, and
 * the step's own drafts are right as far as they agree with them.
 * @param ids i32 [tokens, 1] of the step  @param guesses i32 [logit rows of the step, 1]
 * @param spans i32 [R, 5]: the row of a sequence's last token, the drafts behind it, the first of its guesses, its
 * position, its row of the block table
 * @param draws f32 [R, …]: temperature, top p, top k, and the random numbers of the positions from the first guess on
 */
export function followGuesses(
  graph: Graph,
  start: DraftStart,
  { ids, guesses, spans, draws }: Record<'ids' | 'guesses' | 'spans' | 'draws', Tensor>,
  { blockTable, blockTokens }: Pick<Paging, 'blockTable' | 'blockTokens'>,
): void {
  const { nextIds, index, positions, settings, deeper } = start;
  append(
    graph,
    'follow_guesses',
    [nextIds, index, positions, ...settings, ...deeper.flatMap((next) => [next.positions, next.slots])],
    [ids, guesses, spans, draws, blockTable],
    [settings.length, blockTokens],
  );
}

/** −log softmax(logits)[target] for each row; 0 where the target is negative. @returns f32 [R, 1] */
export function crossEntropy(graph: Graph, logits: Tensor, targets: Tensor): Tensor {
  const out = temp(logits.storage.rows, 1);
  append(graph, 'cross_entropy', [out], [logits, targets]);
  return out;
}

/** Rewrites a row-major matrix [n, k] (f32, bf16, f16, fp8 with scales) into the packed layout of `packed`. */
export function pack(graph: Graph, source: Tensor, packed: Tensor): void {
  append(graph, 'pack', [packed], [source]);
}

/**
 * As `pack`, of NVFP4 as published, into packed_fp4.
 * @param codes u8 [n, k/2], e2m1 codes, the lower k in the low half of a byte  @param scales e4m3 [n, k/16]
 */
export function packFours(graph: Graph, codes: Tensor, scales: Tensor, packed: Tensor): void {
  append(graph, 'pack_fours', [packed], [codes, scales]);
}

/** Sets `found` (i32 [1, 1]) to 1 where a code of `source` (fp8) is NaN, and leaves it alone otherwise. */
export function findNaN(graph: Graph, source: Tensor, found: Tensor): void {
  append(graph, 'find_nan', [found], [source]);
}

/** As `pack`, of the transpose: source [k, n] row-major, packed as n outputs of depth k. FP8 only where blocks align. */
export function packTransposed(graph: Graph, source: Tensor, packed: Tensor): void {
  append(graph, 'pack_transposed', [packed], [source]);
}
