/** config.json of `deepseek_v2` and `deepseek_v3`; defaults as in the published configuration classes. */
import { z } from 'zod';
import type { DeepSeekConfig } from './config.ts';
import { commonConfig, commonFields, commonJson } from './config-common.ts';
import { flag, LIMITS, number, oneOf, only, parseFields, refuseIn, whole } from './config-fields.ts';

const deepSeekFields = z.object({
  ...commonFields,
  num_key_value_heads: whole(1, LIMITS.heads).nullish(),
  q_lora_rank: whole(1, LIMITS.width).nullish(),
  kv_lora_rank: whole(1, LIMITS.width),
  qk_nope_head_dim: whole(1, LIMITS.headDim),
  qk_rope_head_dim: whole(2, LIMITS.headDim),
  v_head_dim: whole(1, LIMITS.headDim),
  n_routed_experts: whole(0, LIMITS.experts).nullish(),
  n_shared_experts: whole(0, LIMITS.experts).nullish(),
  num_experts_per_tok: whole(1, LIMITS.experts).nullish(),
  moe_intermediate_size: whole(1, LIMITS.width).nullish(),
  first_k_dense_replace: whole(0, LIMITS.layers).default(0),
  moe_layer_freq: whole(1, LIMITS.layers).default(1),
  n_group: whole(1, LIMITS.experts).nullish(),
  topk_group: whole(1, LIMITS.experts).nullish(),
  topk_method: oneOf(['greedy', 'group_limited_greedy', 'noaux_tc']).nullish(),
  scoring_func: oneOf(['sigmoid', 'softmax']).nullish(),
  norm_topk_prob: flag().nullish(),
  routed_scaling_factor: number(1e-6, 1e6).nullish(),
  num_nextn_predict_layers: whole(0, 16).default(0),
  rope_interleave: only(true, 'rotary channels of DeepSeek checkpoints are paired side by side'),
});

/** @throws ConfigError naming file, field, expected and found */
export function parseDeepSeek(json: object, modelType: DeepSeekConfig['modelType'], fileName: string): DeepSeekConfig {
  const fields = parseFields(deepSeekFields, json, fileName);
  const isV3 = modelType === 'deepseek_v3';
  const hasExperts = (fields.n_routed_experts ?? 0) > 0;
  const config: DeepSeekConfig = {
    family: 'deepseek',
    modelType,
    ...commonConfig(fields, fileName),
    qLoraRank: fields.q_lora_rank ?? null,
    kvLoraRank: fields.kv_lora_rank,
    qkNopeHeadDim: fields.qk_nope_head_dim,
    qkRopeHeadDim: fields.qk_rope_head_dim,
    vHeadDim: fields.v_head_dim,
    nRoutedExperts: fields.n_routed_experts ?? 0,
    nSharedExperts: hasExperts ? (fields.n_shared_experts ?? 0) : 0,
    numExpertsPerTok: hasExperts ? (fields.num_experts_per_tok ?? 0) : 0,
    moeIntermediateSize: hasExperts ? (fields.moe_intermediate_size ?? 0) : 0,
    firstKDenseReplace: hasExperts ? fields.first_k_dense_replace : fields.num_hidden_layers,
    moeLayerFreq: fields.moe_layer_freq,
    nGroup: fields.n_group ?? 1,
    topkGroup: fields.topk_group ?? 1,
    topkMethod: fields.topk_method ?? (isV3 ? 'noaux_tc' : 'greedy'),
    scoringFunc: fields.scoring_func ?? (isV3 ? 'sigmoid' : 'softmax'),
    normTopkProb: fields.norm_topk_prob ?? isV3,
    routedScalingFactor: fields.routed_scaling_factor ?? (isV3 ? 2.5 : 1),
    numNextnPredictLayers: fields.num_nextn_predict_layers,
  };
  checkAttention(config, fields.num_key_value_heads, fileName);
  if (hasExperts) checkExperts(config, fileName);
  return config;
}

export function deepSeekJson(config: DeepSeekConfig): Record<string, unknown> {
  const hasExperts = config.nRoutedExperts > 0;
  return {
    architectures: [config.modelType === 'deepseek_v3' ? 'DeepseekV3ForCausalLM' : 'DeepseekV2ForCausalLM'],
    model_type: config.modelType,
    ...commonJson(config, 'type'),
    num_key_value_heads: config.numAttentionHeads,
    q_lora_rank: config.qLoraRank,
    kv_lora_rank: config.kvLoraRank,
    qk_nope_head_dim: config.qkNopeHeadDim,
    qk_rope_head_dim: config.qkRopeHeadDim,
    v_head_dim: config.vHeadDim,
    n_routed_experts: hasExperts ? config.nRoutedExperts : null,
    n_shared_experts: hasExperts ? config.nSharedExperts : null,
    num_experts_per_tok: hasExperts ? config.numExpertsPerTok : null,
    moe_intermediate_size: hasExperts ? config.moeIntermediateSize : null,
    first_k_dense_replace: config.firstKDenseReplace,
    moe_layer_freq: config.moeLayerFreq,
    n_group: config.nGroup,
    topk_group: config.topkGroup,
    topk_method: config.topkMethod,
    scoring_func: config.scoringFunc,
    norm_topk_prob: config.normTopkProb,
    routed_scaling_factor: config.routedScalingFactor,
    num_nextn_predict_layers: config.numNextnPredictLayers,
  };
}

function checkAttention(config: DeepSeekConfig, keyValueHeads: number | null | undefined, fileName: string): void {
  const refuse = refuseIn(fileName);
  if ((keyValueHeads ?? config.numAttentionHeads) !== config.numAttentionHeads) {
    refuse(
      'num_key_value_heads',
      keyValueHeads,
      `num_attention_heads = ${config.numAttentionHeads} (latent attention)`,
    );
  }
  if (config.qkRopeHeadDim % 2 !== 0) {
    refuse('qk_rope_head_dim', config.qkRopeHeadDim, 'an even number (channels are rotated in pairs)');
  }
}

function checkExperts(config: DeepSeekConfig, fileName: string): void {
  const refuse = refuseIn(fileName);
  const { nRoutedExperts, nGroup, topkGroup, numExpertsPerTok, topkMethod, numHiddenLayers } = config;
  const experts = `n_routed_experts = ${nRoutedExperts}`;
  if (numExpertsPerTok === 0) refuse('num_experts_per_tok', undefined, `a whole number from 1, since ${experts}`);
  if (config.moeIntermediateSize === 0) {
    refuse('moe_intermediate_size', undefined, `a whole number from 1, since ${experts}`);
  }
  if (numExpertsPerTok > nRoutedExperts) refuse('num_experts_per_tok', numExpertsPerTok, `at most ${experts}`);
  if (config.firstKDenseReplace > numHiddenLayers) {
    refuse('first_k_dense_replace', config.firstKDenseReplace, `at most num_hidden_layers = ${numHiddenLayers}`);
  }
  if (nRoutedExperts * (numHiddenLayers + config.numNextnPredictLayers) > LIMITS.expertsOfAllLayers) {
    refuse('n_routed_experts', nRoutedExperts, `at most ${LIMITS.expertsOfAllLayers} experts in all layers together`);
  }
  if (config.modelType === 'deepseek_v2' && config.normTopkProb && config.routedScalingFactor !== 1) {
    refuse(
      'routed_scaling_factor',
      config.routedScalingFactor,
      '1, since deepseek_v2 with norm_topk_prob does not scale',
    );
  }
  if (topkMethod === 'greedy') return;
  const perGroup = nRoutedExperts / nGroup;
  if (!Number.isInteger(perGroup)) refuse('n_group', nGroup, `a divisor of ${experts}`);
  if (topkGroup > nGroup) refuse('topk_group', topkGroup, `at most n_group = ${nGroup}`);
  if (numExpertsPerTok > topkGroup * perGroup) {
    const kept = `topk_group × n_routed_experts / n_group = ${topkGroup * perGroup}`;
    refuse('num_experts_per_tok', numExpertsPerTok, `at most ${kept}, the experts of the kept groups`);
  }
  if (topkMethod === 'noaux_tc' && perGroup < 2) {
    refuse('n_group', nGroup, `at most half of ${experts} (noaux_tc scores a group by its two best)`);
  }
}
