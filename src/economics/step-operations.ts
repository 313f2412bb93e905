/** The operations of one step of the engine with a model of latent attention (model/deepseek.ts), counted from its shape. */
import type { Architecture } from './architecture.ts';
import { distinctExperts } from './expert-traffic.ts';
import { type ProductShape, productBytes, type RowShares, type WeightFormat } from './product-rates.ts';

/** Tokens of `sequences` sequences, each with `start` tokens before its new ones. */
export interface LocalStep {
  readonly sequences: number;
  readonly tokensEach: number;
  readonly start: number;
}

interface ProductOperation extends ProductShape {
  readonly count: number;
  readonly rows: RowShares;
  /** Share of these weights that one step reads: experts that nobody was routed to are left out. */
  readonly woken: number;
}

/** Cheap operations over rows of values; `work` is the number of values, of scores for a router, in all of them. */
interface RowOperation {
  readonly kernel: string;
  readonly count: number;
  readonly work: number;
}

export interface AttentionShape {
  readonly heads: number;
  readonly kvRank: number;
  readonly ropeDim: number;
}

interface StepOperations {
  readonly products: readonly ProductOperation[];
  readonly rows: readonly RowOperation[];
  readonly attention: AttentionShape & { readonly count: number };
  /** Of weights and cache, read once. */
  readonly bytes: number;
}

/** In the model's cache; BF16. */
export const CACHE_BYTES = 2;
/** Weights of FP8 blocks are FP8 where a block is whole. */
const BLOCK = 128;

class LocalEngineError extends Error {
  override name = 'LocalEngineError';
}

/** @param weights type of the linear weights; head, tables and small parts stay BF16, the router FP32 */
export function stepOperations(a: Architecture, step: LocalStep, weights: 'fp8' | 'bf16'): StepOperations {
  const { attention, experts, hidden, layers } = a;
  if (attention.kind !== 'mla' || attention.indexer) {
    throw new LocalEngineError(`the model is ${a.modelType}, expected one with latent attention that the engine runs`);
  }
  const { heads, qRank, kvRank, nopeDim, ropeDim, valueDim } = attention;
  const tokens = step.sequences * step.tokensEach;
  const queryWidth = heads * (nopeDim + ropeDim);
  const products: ProductOperation[] = [];
  const rows: RowOperation[] = [];
  const product = (count: number, k: number, n: number, format: WeightFormat = weights, many = 1) =>
    products.push({
      format,
      count,
      products: many,
      k,
      n,
      rows: [{ rows: tokens, share: 1 }],
      woken: 1,
    });
  const row = (kernel: string, count: number, width: number) =>
    rows.push({ kernel, count, work: count * tokens * width });

  row('rms_norm', 2 * layers, hidden);
  row('rms_norm', layers, kvRank);
  if (qRank === null) product(layers, hidden, queryWidth);
  else {
    product(layers, hidden, qRank);
    row('rms_norm', layers, qRank);
    product(layers, qRank, queryWidth);
  }
  product(layers, hidden, kvRank + ropeDim);
  row('rope', layers, queryWidth);
  row('rope', layers, ropeDim);
  row('write_latent', layers, kvRank + ropeDim);
  const headFormat = nopeDim % BLOCK === 0 && valueDim % BLOCK === 0 ? weights : 'bf16';
  product(layers, nopeDim, kvRank, headFormat, heads);
  product(layers, kvRank, valueDim, headFormat, heads);
  product(layers, heads * valueDim, hidden);
  row('add', 2 * layers, hidden);

  const feedForward = (count: number, width: number) => {
    if (count === 0) return;
    product(2 * count, hidden, width);
    row('silu_mul', count, width);
    product(count, width, hidden);
  };
  const moeLayers = experts ? layers - a.denseLayers : 0;
  feedForward(layers - moeLayers, a.denseWidth);
  if (experts && moeLayers > 0) {
    const { routed, topK, width, shared } = experts;
    product(moeLayers, hidden, routed, 'f32');
    row('route_tokens', moeLayers, routed * topK);
    row('group_by_expert', moeLayers, topK);
    const woken = distinctExperts(experts, tokens);
    const each = {
      format: weights,
      products: woken,
      rows: binomialShares(tokens, topK / routed),
      woken: woken / routed,
    };
    products.push({ ...each, count: 2 * moeLayers, k: hidden, n: width });
    row('silu_mul', moeLayers, topK * width);
    products.push({ ...each, count: moeLayers, k: width, n: hidden });
    row('combine_experts', moeLayers, topK * hidden);
    if (shared > 0) {
      feedForward(moeLayers, shared * width);
      row('add', moeLayers, hidden);
    }
  }
  row('rms_norm', 1, hidden);
  products.push({
    format: 'bf16',
    count: 1,
    products: 1,
    k: hidden,
    n: a.vocab,
    rows: [{ rows: step.sequences, share: 1 }],
    woken: 1,
  });
  const cached = step.sequences * (step.start + step.tokensEach) * layers * (kvRank + ropeDim) * CACHE_BYTES;
  return {
    products,
    rows,
    attention: { heads, kvRank, ropeDim, count: layers },
    bytes: products.reduce((sum, each) => sum + each.count * productBytes(each), cached),
  };
}

/** Of the experts that were routed to at all: rows that one has, when every token picks it with a probability. */
function binomialShares(tokens: number, probability: number): RowShares {
  const shares: { rows: number; share: number }[] = [];
  const some = 1 - (1 - probability) ** tokens;
  let logShare = tokens * Math.log1p(-probability);
  for (let rows = 1; rows <= tokens; rows++) {
    logShare += Math.log(((tokens - rows + 1) / rows) * (probability / (1 - probability)));
    const share = Math.exp(logShare) / some;
    if (share > 1e-4) shares.push({ rows, share });
  }
  return shares;
}
