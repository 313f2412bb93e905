/**
 * What a model consists of and what one token of it takes: parameters, operations, cache. Pure functions of the
 * architecture; a multiplication and an addition are two operations.
 */
import type { Architecture, Attention } from './architecture.ts';
import { type BytesPerToken, bytesPerToken, type FlopPerToken, flopPerToken } from './quantity.ts';

export interface ParameterCount {
  readonly total: number;
  /**
   * What one token runs through: everything but experts it is not routed to and the input table, a mere look-up unless
   * it is the output head too.
   */
  readonly active: number;
  readonly activeWithEmbedding: number;
  /** Those of `active` that stand in matrix products (no norms, no biases). */
  readonly inProducts: number;
  /** Multi-token-prediction modules without the tables they share; in none of the other counts. */
  readonly mtp: number;
  /** Parts of the total. */
  readonly parts: {
    readonly embedding: number;
    readonly head: number;
    readonly attention: number;
    readonly dense: number;
    readonly routedExperts: number;
    readonly sharedExperts: number;
    readonly routers: number;
    readonly norms: number;
  };
}

export function countParameters(a: Architecture): ParameterCount {
  const { hidden, layers, experts } = a;
  const moeLayers = layers - a.denseLayers;
  const expert = experts ? expertParameters(a) + experts.expertVector : 0;
  const router = experts ? hidden * experts.routed : 0;
  const attention = attentionParameters(a);
  const table = a.vocab * hidden;
  const parts = {
    embedding: table,
    head: a.tied ? 0 : table,
    attention: attention.products + attention.vectors,
    dense: a.denseLayers * 3 * hidden * a.denseWidth,
    routedExperts: moeLayers * (experts?.routed ?? 0) * expert,
    sharedExperts: moeLayers * (experts?.shared ?? 0) * expert,
    routers: moeLayers * (router + (experts?.routerVector ?? 0)),
    norms: layers * 2 * hidden + hidden,
  };
  const total = Object.values(parts).reduce((sum, part) => sum + part, 0);
  const idle = moeLayers * ((experts?.routed ?? 0) - (experts?.topK ?? 0)) * expert;
  const inProducts =
    attention.products +
    parts.dense +
    moeLayers * (((experts?.topK ?? 0) + (experts?.shared ?? 0)) * (experts ? expertParameters(a) : 0) + router) +
    table;
  // A module: a layer like the others, two norms, and the projection that joins hidden state and embedding (V3 §2.2).
  const layer = (parts.attention + 2 * hidden * layers) / layers;
  const mtpLayer = layer + (experts ? router + experts.routerVector + (experts.routed + experts.shared) * expert : 0);
  return {
    total,
    active: total - idle - (a.tied ? 0 : table),
    activeWithEmbedding: total - idle,
    inProducts,
    mtp: a.mtpLayers * (mtpLayer + 2 * hidden * hidden + 3 * hidden),
    parts,
  };
}

/** How weights are kept and products computed. */
export type Precision = 'fp8' | 'bf16';

/** Bytes of one weight. A block of 128 × 128 e4m3 weights has one scale in FP32. */
export function weightBytes(precision: Precision): number {
  return precision === 'fp8' ? 1 + 4 / (128 * 128) : 2;
}

/** Weights of one expert, without biases: gate, up and down. */
export function expertParameters(a: Architecture): number {
  return a.experts ? 3 * a.hidden * a.experts.width : 0;
}

/** Layers of V4 that compress by this choose what they attend to by an indexer, and their windows overlap. */
const INDEXED_RATIO = 4;

/** Weights and vectors of the attention of all layers. */
function attentionParameters({ attention, hidden, layers }: Architecture): { products: number; vectors: number } {
  switch (attention.kind) {
    case 'mla': {
      const { heads, qRank, kvRank, nopeDim, ropeDim, valueDim, indexer } = attention;
      const queryWidth = heads * (nopeDim + ropeDim);
      const query = qRank === null ? hidden * queryWidth : hidden * qRank + qRank * queryWidth;
      const keyValue = hidden * (kvRank + ropeDim) + kvRank * heads * (nopeDim + valueDim);
      const index = indexer
        ? (qRank ?? hidden) * indexer.heads * indexer.dim + hidden * indexer.dim + hidden * indexer.heads
        : 0;
      const layer = query + keyValue + heads * valueDim * hidden + index;
      // The indexer's keys pass a layer norm with weight and bias.
      const vectors = (qRank ?? 0) + kvRank + (indexer ? 2 * indexer.dim : 0);
      return { products: layers * layer, vectors: layers * vectors };
    }
    case 'grouped': {
      const { heads, kvHeads, headDim, vectors } = attention;
      return { products: layers * hidden * headDim * (2 * heads + 2 * kvHeads), vectors: layers * vectors };
    }
    case 'compressed':
      return { products: compressedAttentionParameters(attention, hidden, layers), vectors: 0 };
  }
}

/**
 * The outline of V4's attention as its config gives it. The compressors are taken as two projections to the head's
 * width, twice as wide where windows overlap, for the main cache and for the indexer's; no report states
 * them, and hyper-connections are left out.
 */
function compressedAttentionParameters(
  attention: Attention & { kind: 'compressed' },
  hidden: number,
  layers: number,
): number {
  const { heads, headDim, qRank, outRank, outGroups, indexer, layersByRatio } = attention;
  const wide = heads * headDim;
  const layer = hidden * qRank + qRank * wide + hidden * headDim + wide * outRank + outGroups * outRank * hidden;
  // The ratios are given for the drafting layer too, which sees its window alone.
  const compressors = layersByRatio.reduce((sum, { ratio, layers: count }) => {
    if (ratio === 0) return sum;
    const widths = ratio === INDEXED_RATIO ? 2 * (headDim + indexer.dim) : headDim;
    const index = ratio === INDEXED_RATIO ? qRank * indexer.heads * indexer.dim + hidden * indexer.heads : 0;
    return sum + count * (2 * hidden * widths + index);
  }, 0);
  return layers * layer + compressors;
}

/** Which way latent attention is computed: keys and values of every head made anew, or in the latent space. */
export type LatentForm = 'expanded' | 'absorbed';

/**
 * Operations of the attention core for one query token, for each token it looks back on, in all layers together.
 * @param form for latent attention: expanded in prefill and training, absorbed in decode (V2 report §2.1.3)
 */
export function attentionFlopPerPair({ attention, layers }: Architecture, form: LatentForm = 'expanded'): number {
  switch (attention.kind) {
    case 'mla': {
      const { heads, kvRank, nopeDim, ropeDim, valueDim } = attention;
      const perHead = form === 'expanded' ? nopeDim + ropeDim + valueDim : 2 * kvRank + ropeDim;
      return layers * 2 * heads * perHead;
    }
    case 'grouped':
      return layers * 4 * attention.heads * attention.headDim;
    case 'compressed':
      return layers * 4 * attention.heads * attention.headDim;
  }
}

/** Tokens that each layer, on average over layers, looks back on. */
function attendedTokens({ attention }: Architecture, context: number): number {
  if (attention.kind === 'grouped' && attention.slidingWindow !== null) {
    return (context + Math.min(context, attention.slidingWindow)) / 2;
  }
  if (attention.kind === 'mla' && attention.indexer) return Math.min(context, attention.indexer.topK);
  if (attention.kind === 'compressed') {
    const { layersByRatio, indexer, window } = attention;
    const all = layersByRatio.reduce((sum, { layers }) => sum + layers, 0);
    const compressed = layersByRatio.reduce((sum, { ratio, layers }) => {
      if (ratio === 0) return sum;
      return sum + layers * (ratio === INDEXED_RATIO ? Math.min(context / ratio, indexer.topK) : context / ratio);
    }, 0);
    return Math.min(context, window) + compressed / all;
  }
  return context;
}

/** Operations of the sparse attention's indexer for one token and each token before it, in all layers. */
function indexerFlopPerPair({ attention, layers }: Architecture): number {
  if (attention.kind === 'grouped' || !attention.indexer) return 0;
  const { heads, dim } = attention.indexer;
  if (attention.kind === 'mla') return layers * 2 * heads * dim;
  const indexed = attention.layersByRatio.find(({ ratio }) => ratio === INDEXED_RATIO)?.layers ?? 0;
  return (indexed * 2 * heads * dim) / INDEXED_RATIO;
}

/** Forward operations of one token that looks back on `context` tokens. */
export function forwardFlop(a: Architecture, context: number, form: LatentForm = 'expanded'): FlopPerToken {
  return flopPerToken(
    2 * countParameters(a).inProducts +
      attentionFlopPerPair(a, form) * attendedTokens(a, context) +
      indexerFlopPerPair(a) * context,
  );
}

/**
 * Operations of training on one token: forward once, backward twice as much, nothing recomputed.
 * @param convention causal counts the half of the score matrix that is used, noncausal all of it; reports print both
 */
export function trainingFlop(
  a: Architecture,
  sequenceLength: number,
  convention: 'causal' | 'noncausal' = 'causal',
): FlopPerToken {
  return flopPerToken(3 * forwardFlop(a, convention === 'causal' ? sequenceLength / 2 : sequenceLength));
}

/** Values that the cache keeps for one token, all layers together; a window is not taken off. */
export function cacheElements({ attention, layers }: Architecture): number {
  switch (attention.kind) {
    case 'mla':
      return layers * (attention.kvRank + attention.ropeDim);
    case 'grouped':
      return layers * 2 * attention.kvHeads * attention.headDim;
    case 'compressed':
      return attention.layersByRatio.reduce(
        (sum, { ratio, layers: count }) => sum + (ratio > 0 ? (count * attention.headDim) / ratio : 0),
        0,
      );
  }
}

/**
 * How cached values are kept. `fp8`: a byte each, and for latent attention the published layout of 656 bytes: 512 e4m3
 * values, a scale for each 128 of them, 64 rotary values in BF16 (FlashMLA).
 */
export const CACHE_LAYOUTS = ['bf16', 'fp8', 'int6'] as const;
export type CacheLayout = (typeof CACHE_LAYOUTS)[number];

export function cacheBytes(a: Architecture, layout: CacheLayout): BytesPerToken {
  const { attention } = a;
  // The indexer's keys: e4m3 with one scale in FP32 (V3.2).
  const index = attention.kind === 'mla' && attention.indexer ? a.layers * (attention.indexer.dim + 4) : 0;
  if (layout === 'fp8' && attention.kind === 'mla') {
    const { kvRank, ropeDim } = attention;
    return bytesPerToken(a.layers * (kvRank + 4 * Math.ceil(kvRank / 128) + 2 * ropeDim) + index);
  }
  const bytesPerElement = { bf16: 2, fp8: 1, int6: 6 / 8 }[layout];
  return bytesPerToken(cacheElements(a) * bytesPerElement + index);
}

/** The same model with another kind of attention of as many heads: what its cache would be. */
export function withAttention(a: Architecture, kind: 'mha' | 'gqa8' | 'mqa'): Architecture {
  const { attention } = a;
  const heads = attention.heads;
  const headDim = attention.kind === 'mla' ? attention.nopeDim : attention.headDim;
  const kvHeads = { mha: heads, gqa8: Math.min(8, heads), mqa: 1 }[kind];
  return { ...a, attention: { kind: 'grouped', heads, kvHeads, headDim, vectors: 0, slidingWindow: null } };
}
