/** What a checkpoint holds and needs: parameters, weight bytes, and the cache beside what other attentions would keep. */
import { type DeepSeekConfig, isMoeLayer, type ModelConfig } from './config.ts';
import { cacheBytesPerToken } from './forward.ts';
import { type ExpectedWeight, weightCatalogue } from './weight-catalogue.ts';

export interface ModelReport {
  readonly architecture: string;
  readonly layers: number;
  readonly contextTokens: number;
  readonly vocab: number;
  /** The main model, embedding and head included, block scales and MTP modules not. */
  readonly parameters: number;
  /** Those whose weights one token reads whole: not the experts it is not routed to, not the embedding's other rows. */
  readonly activeParameters: number;
  readonly mtpParameters: number;
  /** Bytes that one token occupies in the cache over all layers, in BF16 where nothing else is said. */
  readonly cacheBytesPerToken: {
    readonly model: number;
    /** In FP8, which is a layout of latents alone: null for other attentions. */
    readonly fp8: number | null;
    /** The same heads with keys and values of their own. */
    readonly multiHead: number;
    /** The same heads in 8 groups (at most one a head) that share keys and values. */
    readonly groupedQuery8: number;
  };
}

const VALUE_BYTES = 2;
const GROUPS = 8;

export function modelReport(config: ModelConfig): ModelReport {
  const weights = weightCatalogue(config).filter(
    ({ role, required }) => role !== 'scale' && !(role === 'head' && required === 'never'),
  );
  const isMtp = ({ name }: ExpectedWeight) => layerOf(name) >= config.numHiddenLayers;
  const main = weights.filter((weight) => !isMtp(weight));
  // An MTP module shares embedding and head with the main model.
  const mtp = weights.filter((weight) => isMtp(weight) && weight.role !== 'embedding' && weight.role !== 'head');
  const perHead = headWidth(config);
  const heads = config.numAttentionHeads;
  const perLayer = (values: number) => values * config.numHiddenLayers * VALUE_BYTES;
  return {
    architecture: architecture(config),
    layers: config.numHiddenLayers,
    contextTokens: config.maxPositionEmbeddings,
    vocab: config.vocabSize,
    parameters: sum(main, parametersOf),
    activeParameters: sum(main, (weight) => parametersOf(weight) * activeShare(config, weight)),
    mtpParameters: sum(mtp, parametersOf),
    cacheBytesPerToken: {
      model: cacheBytesPerToken(config, 'bf16'),
      fp8: config.family === 'deepseek' ? cacheBytesPerToken(config, 'fp8') : null,
      multiHead: perLayer(heads * perHead),
      groupedQuery8: perLayer(Math.min(GROUPS, heads) * perHead),
    },
  };
}

function parametersOf({ shape }: ExpectedWeight): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The part of a weight that one token reads: routed experts share their tokens, an embedding is one row. */
function activeShare(config: ModelConfig, { role }: ExpectedWeight): number {
  if (role === 'embedding') return config.tieWordEmbeddings ? 1 : 0;
  return role === 'expert' && config.family === 'deepseek' ? config.numExpertsPerTok / config.nRoutedExperts : 1;
}

function sum(weights: readonly ExpectedWeight[], value: (weight: ExpectedWeight) => number): number {
  return Math.round(weights.reduce((total, weight) => total + value(weight), 0));
}

function layerOf(name: string): number {
  return Number(/^model\.layers\.(\d+)\./.exec(name)?.[1] ?? -1);
}

/** Values of one head's key and value. */
function headWidth(config: ModelConfig): number {
  if (config.family === 'dense') return 2 * config.headDim;
  return config.qkNopeHeadDim + config.qkRopeHeadDim + config.vHeadDim;
}

function architecture(config: ModelConfig): string {
  const { modelType, numAttentionHeads: heads } = config;
  if (config.family === 'dense') {
    const { numKeyValueHeads: groups } = config;
    return `${modelType}: grouped-query attention (${heads} heads, ${groups} key-value heads), dense`;
  }
  return `${modelType}: multi-head latent attention (${heads} heads, latent ${config.kvLoraRank} + ${config.qkRopeHeadDim}), ${experts(config)}`;
}

function experts(config: DeepSeekConfig): string {
  const layers = Array.from({ length: config.numHiddenLayers }, (_, i) => i).filter((i) =>
    isMoeLayer(config, i),
  ).length;
  if (layers === 0) return 'dense';
  const { nRoutedExperts, nSharedExperts, numExpertsPerTok } = config;
  return `${layers} layers of ${nRoutedExperts} experts, ${numExpertsPerTok} a token, and ${nSharedExperts} shared`;
}
