/** config.json of `llama`, `qwen2` and `qwen3`; defaults as in the published configuration classes. */
import { z } from 'zod';
import type { DenseConfig } from './config.ts';
import { commonConfig, commonFields, commonJson } from './config-common.ts';
import { LIMITS, only, parseFields, refuseIn, whole } from './config-fields.ts';

const denseFields = z.object({
  ...commonFields,
  num_key_value_heads: whole(1, LIMITS.heads).nullish(),
  head_dim: whole(2, LIMITS.headDim).nullish(),
  use_sliding_window: only(false, 'attention over a sliding window is not implemented'),
  use_mrope: only(false, 'rotary positions of several axes are not implemented'),
  layer_types: z
    .array(z.literal('full_attention', '"full_attention" (other kinds are not implemented)'), 'an array')
    .nullish(),
});

/** @throws ConfigError naming file, field, expected and found */
export function parseDense(json: object, modelType: DenseConfig['modelType'], fileName: string): DenseConfig {
  const fields = parseFields(denseFields, json, fileName);
  const refuse = refuseIn(fileName);
  const { num_attention_heads: heads, hidden_size: hiddenSize } = fields;
  const kvHeads = fields.num_key_value_heads ?? (modelType === 'llama' ? heads : undefined);
  if (kvHeads === undefined)
    return refuse('num_key_value_heads', undefined, `a divisor of num_attention_heads = ${heads}`);
  if (heads % kvHeads !== 0) refuse('num_key_value_heads', kvHeads, `a divisor of num_attention_heads = ${heads}`);
  if (!fields.head_dim && modelType === 'qwen3')
    refuse('head_dim', undefined, `a whole number from 2 to ${LIMITS.headDim}`);
  if (!fields.head_dim && hiddenSize % heads !== 0) {
    refuse('num_attention_heads', heads, `a divisor of hidden_size = ${hiddenSize}, since head_dim is not given`);
  }
  const headDim = fields.head_dim ?? hiddenSize / heads;
  if (headDim % 2 !== 0) refuse('head_dim', headDim, 'an even number (channels are rotated in pairs)');
  return {
    family: 'dense',
    modelType,
    ...commonConfig(fields, fileName),
    numKeyValueHeads: kvHeads,
    headDim,
    qkvBias: modelType === 'qwen2',
    qkNorm: modelType === 'qwen3',
  };
}

export function denseJson(config: DenseConfig): Record<string, unknown> {
  const architecture = { llama: 'LlamaForCausalLM', qwen2: 'Qwen2ForCausalLM', qwen3: 'Qwen3ForCausalLM' };
  return {
    architectures: [architecture[config.modelType]],
    model_type: config.modelType,
    ...commonJson(config, 'rope_type'),
    num_key_value_heads: config.numKeyValueHeads,
    head_dim: config.headDim,
  };
}
