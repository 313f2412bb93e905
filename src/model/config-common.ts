/** The fields of config.json that every architecture has. */
import { z } from 'zod';
import type { CommonConfig } from './config.ts';
import { flag, LIMITS, number, oneOf, only, refuseIn, whole } from './config-fields.ts';
import { parseRope, ropeFields, ropeJson } from './config-rope.ts';

const torchDtype = oneOf(['float32', 'float16', 'bfloat16']).nullish();

/** As ModelOpt writes it; which layers have it is seen from the tensors. */
const nvfp4 = z.looseObject({ quant_method: z.literal('modelopt'), quant_algo: z.literal('NVFP4', '"NVFP4"') });

const fp8 = z.looseObject(
  {
    quant_method: z.literal('fp8'),
    fmt: z.literal('e4m3', '"e4m3"').nullish(),
    activation_scheme: z.literal('dynamic', '"dynamic"').nullish(),
    weight_block_size: z.tuple([z.literal(128, '128'), z.literal(128, '128')], '[128, 128]'),
  },
  'an object or null',
);

const quantization = z.discriminatedUnion('quant_method', [fp8, nvfp4], {
  error: ({ code }) => (code === 'invalid_union' ? '"fp8" or "modelopt"' : 'an object or null'),
});

export const commonFields = {
  vocab_size: whole(1, LIMITS.vocab),
  hidden_size: whole(1, LIMITS.width),
  intermediate_size: whole(1, LIMITS.width),
  num_hidden_layers: whole(1, LIMITS.layers),
  num_attention_heads: whole(1, LIMITS.heads),
  max_position_embeddings: whole(1, LIMITS.positions),
  rms_norm_eps: number(1e-12, 0.1).default(1e-6),
  hidden_act: only('silu', 'other activations are not implemented'),
  tie_word_embeddings: flag().default(false),
  bos_token_id: whole(0, LIMITS.vocab).nullish(),
  eos_token_id: z
    .union([whole(0, LIMITS.vocab), z.array(whole(0, LIMITS.vocab)).max(64)], 'a token id, an array of ids, or null')
    .nullish(),
  initializer_range: number(0, 10).default(0.02),
  attention_bias: only(false, 'attention biases are those of qwen2 alone'),
  mlp_bias: only(false, 'feed-forward biases are not implemented'),
  partial_rotary_factor: only(1, 'partly rotated heads are not implemented'),
  quantization_config: quantization.nullish(),
  torch_dtype: torchDtype,
  dtype: torchDtype,
  ...ropeFields,
};

type CommonFields = z.infer<z.ZodObject<typeof commonFields>>;

/** The shared part of a config, from fields that have been checked one by one. */
export function commonConfig(fields: CommonFields, fileName: string): CommonConfig {
  const refuse = refuseIn(fileName);
  const eos = fields.eos_token_id ?? [];
  const eosTokenIds = typeof eos === 'number' ? [eos] : eos;
  const inVocabulary = `less than vocab_size = ${fields.vocab_size}`;
  if ((fields.bos_token_id ?? 0) >= fields.vocab_size) refuse('bos_token_id', fields.bos_token_id, inVocabulary);
  if (eosTokenIds.some((id) => id >= fields.vocab_size)) refuse('eos_token_id', fields.eos_token_id, inVocabulary);
  return {
    vocabSize: fields.vocab_size,
    hiddenSize: fields.hidden_size,
    intermediateSize: fields.intermediate_size,
    numHiddenLayers: fields.num_hidden_layers,
    numAttentionHeads: fields.num_attention_heads,
    maxPositionEmbeddings: fields.max_position_embeddings,
    rmsNormEps: fields.rms_norm_eps,
    ...parseRope(fields, fileName),
    tieWordEmbeddings: fields.tie_word_embeddings,
    bosTokenId: fields.bos_token_id ?? null,
    eosTokenIds,
    initializerRange: fields.initializer_range,
    quantization: !fields.quantization_config
      ? null
      : fields.quantization_config.quant_method === 'fp8'
        ? 'fp8'
        : 'nvfp4',
    torchDtype: fields.torch_dtype ?? fields.dtype ?? 'bfloat16',
  };
}

/** The shared part of a config.json; `kindKey` names the kind of rope scaling. */
export function commonJson(config: CommonConfig, kindKey: 'type' | 'rope_type'): Record<string, unknown> {
  const { eosTokenIds } = config;
  const nvfp4 = { quant_method: 'modelopt', quant_algo: 'NVFP4' };
  const fp8 = { quant_method: 'fp8', fmt: 'e4m3', activation_scheme: 'dynamic', weight_block_size: [128, 128] };
  return {
    vocab_size: config.vocabSize,
    hidden_size: config.hiddenSize,
    intermediate_size: config.intermediateSize,
    num_hidden_layers: config.numHiddenLayers,
    num_attention_heads: config.numAttentionHeads,
    max_position_embeddings: config.maxPositionEmbeddings,
    rms_norm_eps: config.rmsNormEps,
    ...ropeJson(config.ropeTheta, config.ropeScaling, kindKey),
    hidden_act: 'silu',
    attention_bias: false,
    tie_word_embeddings: config.tieWordEmbeddings,
    bos_token_id: config.bosTokenId,
    eos_token_id: eosTokenIds.length === 0 ? null : eosTokenIds.length === 1 ? eosTokenIds[0] : eosTokenIds,
    initializer_range: config.initializerRange,
    ...(config.quantization === null ? {} : { quantization_config: config.quantization === 'fp8' ? fp8 : nvfp4 }),
    torch_dtype: config.torchDtype,
    use_cache: true,
  };
}
