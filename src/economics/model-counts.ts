/** Everything that is counted of one model, as `farthing price counts` prints it and a page shows it. */
import type { Architecture } from './architecture.ts';
import {
  CACHE_LAYOUTS,
  type CacheLayout,
  cacheBytes,
  countParameters,
  forwardFlop,
  type ParameterCount,
  trainingFlop,
  withAttention,
} from './counts.ts';
import { distinctExperts, type ExchangeBytes, exchangeBytes, touchedWeightBytes } from './expert-traffic.ts';
import type { Bytes, BytesPerToken, FlopPerToken } from './quantity.ts';

export interface CountSettings {
  /** Tokens that a token looks back on; the length of a training sequence. */
  readonly context: number;
  /** Sequences that decode together. */
  readonly batches: readonly number[];
  /** Devices that experts are spread over, and how many of them share a node. */
  readonly devices: number;
  readonly devicesPerNode: number;
  /** Share of tokens that each expert is given, where measured; even unless given. */
  readonly expertShares?: readonly number[];
}

type AttentionKind = 'as published' | 'mha' | 'gqa8' | 'mqa';

export interface ModelCounts {
  readonly parameters: ParameterCount;
  readonly activeShare: number;
  readonly flopPerToken: {
    /** One token after `context` others, keys and values of every head made anew, and in the latent space. */
    readonly forward: FlopPerToken;
    readonly decode: FlopPerToken;
    readonly attentionShareOfDecode: number;
    readonly trainingCausal: FlopPerToken;
    readonly trainingNoncausal: FlopPerToken;
  };
  readonly cacheBytesPerToken: Readonly<Record<AttentionKind, Readonly<Record<CacheLayout, BytesPerToken>>>>;
  readonly decodeStep: readonly {
    readonly batch: number;
    readonly distinctExpertsPerLayer: number;
    readonly shareOfExperts: number;
    readonly fp8WeightBytes: Bytes;
    readonly bf16WeightBytes: Bytes;
  }[];
  /** In one layer, sent once to each node in FP8 and returned in BF16; null for a model without experts. */
  readonly allToAllBytesPerToken: { readonly remote: ExchangeBytes; readonly local: ExchangeBytes } | null;
}

export function modelCounts(a: Architecture, settings: CountSettings): ModelCounts {
  const { context, batches, expertShares } = settings;
  const parameters = countParameters(a);
  const decode = forwardFlop(a, context, 'absorbed');
  const { experts } = a;
  const layouts = (of: Architecture) =>
    Object.fromEntries(CACHE_LAYOUTS.map((layout) => [layout, cacheBytes(of, layout)])) as Record<
      CacheLayout,
      BytesPerToken
    >;
  return {
    parameters,
    activeShare: parameters.active / parameters.total,
    flopPerToken: {
      forward: forwardFlop(a, context),
      decode,
      attentionShareOfDecode: 1 - (2 * parameters.inProducts) / decode,
      trainingCausal: trainingFlop(a, context, 'causal'),
      trainingNoncausal: trainingFlop(a, context, 'noncausal'),
    },
    cacheBytesPerToken: {
      'as published': layouts(a),
      mha: layouts(withAttention(a, 'mha')),
      gqa8: layouts(withAttention(a, 'gqa8')),
      mqa: layouts(withAttention(a, 'mqa')),
    },
    decodeStep: batches.map((batch) => {
      const distinct = experts ? distinctExperts(experts, batch, expertShares) : 0;
      return {
        batch,
        distinctExpertsPerLayer: distinct,
        shareOfExperts: experts ? distinct / experts.routed : 0,
        fp8WeightBytes: touchedWeightBytes(a, batch, 'fp8', expertShares),
        bf16WeightBytes: touchedWeightBytes(a, batch, 'bf16', expertShares),
      };
    }),
    allToAllBytesPerToken: experts ? exchangeBytes({ ...a, experts }, settings, 'throughput', 'fp8') : null,
  };
}
