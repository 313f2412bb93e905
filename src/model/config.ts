/**
 * The architecture of a model: `config.json` of a published checkpoint, checked and brought into one plain record
 * with every default resolved. Keys as Hugging Face publishes them; names here as the papers write them.
 */
import { z } from 'zod';
import { shown } from '../numerics/format-error.ts';
import { deepSeekJson, parseDeepSeek } from './config-deepseek.ts';
import { denseJson, parseDense } from './config-dense.ts';
import { ConfigError, oneOf, parseFields } from './config-fields.ts';

export type ModelConfig = DeepSeekConfig | DenseConfig;

export interface CommonConfig {
  readonly vocabSize: number;
  readonly hiddenSize: number;
  /** Width of the feed-forward block of dense layers. */
  readonly intermediateSize: number;
  readonly numHiddenLayers: number;
  readonly numAttentionHeads: number;
  readonly maxPositionEmbeddings: number;
  readonly rmsNormEps: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling;
  /** The embedding table is the head too; the checkpoint needs no lm_head.weight. */
  readonly tieWordEmbeddings: boolean;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
  /** Standard deviation of freshly drawn weights. */
  readonly initializerRange: number;
  /** `fp8`: linear weights may be stored as e4m3 with 128×128 block scales. */
  readonly quantization: 'fp8' | 'nvfp4' | null;
  /** What the weights were trained in, for those who read the checkpoint elsewhere; tensors tell their own type. */
  readonly torchDtype: TorchDtype;
}

/** Multi-head latent attention and fine-grained experts: DeepSeek-V2 report §2, DeepSeek-V3 report §2. */
export interface DeepSeekConfig extends CommonConfig {
  readonly family: 'deepseek';
  readonly modelType: 'deepseek_v2' | 'deepseek_v3';
  /** null: queries are projected directly by q_proj. */
  readonly qLoraRank: number | null;
  readonly kvLoraRank: number;
  readonly qkNopeHeadDim: number;
  readonly qkRopeHeadDim: number;
  readonly vHeadDim: number;
  /** 0: no layer has experts. */
  readonly nRoutedExperts: number;
  readonly nSharedExperts: number;
  readonly numExpertsPerTok: number;
  readonly moeIntermediateSize: number;
  readonly firstKDenseReplace: number;
  readonly moeLayerFreq: number;
  readonly nGroup: number;
  readonly topkGroup: number;
  readonly topkMethod: 'greedy' | 'group_limited_greedy' | 'noaux_tc';
  readonly scoringFunc: 'sigmoid' | 'softmax';
  readonly normTopkProb: boolean;
  readonly routedScalingFactor: number;
  /** Multi-token-prediction modules, stored as the layers after the last main one. */
  readonly numNextnPredictLayers: number;
}

/** Grouped-query attention with one feed-forward block a layer: Llama, Qwen2, Qwen3. */
export interface DenseConfig extends CommonConfig {
  readonly family: 'dense';
  readonly modelType: 'llama' | 'qwen2' | 'qwen3';
  readonly numKeyValueHeads: number;
  readonly headDim: number;
  /** Biases on q_proj, k_proj and v_proj (Qwen2; no key of the config says so). */
  readonly qkvBias: boolean;
  /** RMSNorm over each head's query and key before RoPE (Qwen3). */
  readonly qkNorm: boolean;
}

/** How rotary frequencies are stretched past the trained context; see rope.ts. */
export type RopeScaling =
  | { readonly type: 'none' }
  | { readonly type: 'linear'; readonly factor: number }
  | {
      readonly type: 'yarn';
      readonly factor: number;
      readonly originalMaxPositionEmbeddings: number;
      readonly betaFast: number;
      readonly betaSlow: number;
      /** 1 and 0 where the config names neither. */
      readonly mscale: number;
      readonly mscaleAllDim: number;
      /** Given instead of the magnitude that the factor implies. */
      readonly attentionFactor: number | null;
    }
  | {
      readonly type: 'llama3';
      readonly factor: number;
      readonly lowFreqFactor: number;
      readonly highFreqFactor: number;
      readonly originalMaxPositionEmbeddings: number;
    };

type TorchDtype = 'float32' | 'float16' | 'bfloat16';

const MODEL_TYPES = ['deepseek_v2', 'deepseek_v3', 'llama', 'qwen2', 'qwen3'] as const;

/**
 * @param json the parsed content of a config.json
 * @param fileName as it should be named in messages
 * @throws ConfigError naming file, field, expected and found
 */
export function parseConfig(json: unknown, fileName: string): ModelConfig {
  if (typeof json !== 'object' || json === null || Array.isArray(json)) {
    throw new ConfigError(`${fileName}: the whole is ${shown(json)}, expected a JSON object`);
  }
  if (!('model_type' in json) && 'n_layers' in json && 'dim' in json) {
    throw new ConfigError(
      `${fileName}: this is a configuration of DeepSeek's own inference code. Use the config.json of the Hugging Face folder`,
    );
  }
  const { model_type: modelType } = parseFields(z.object({ model_type: oneOf(MODEL_TYPES) }), json, fileName);
  return modelType === 'deepseek_v2' || modelType === 'deepseek_v3'
    ? parseDeepSeek(json, modelType, fileName)
    : parseDense(json, modelType, fileName);
}

/** The config.json of a model, in official keys: `parseConfig(toConfigJson(config))` gives an equal config. */
export function toConfigJson(config: ModelConfig): Record<string, unknown> {
  return config.family === 'deepseek' ? deepSeekJson(config) : denseJson(config);
}

/** Whether layer `i` routes tokens to experts. Layers from numHiddenLayers on are MTP modules. */
export function isMoeLayer(config: DeepSeekConfig, i: number): boolean {
  if (config.nRoutedExperts === 0) return false;
  if (i >= config.numHiddenLayers) return true;
  return i >= config.firstKDenseReplace && i % config.moeLayerFreq === 0;
}
