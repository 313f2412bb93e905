/**
 * Every tensor that the checkpoint of a model holds: its published name, its shape with the config keys that decide
 * it, and the element types it may have. Names and FP8 set: DeepSeek-V3's README_WEIGHTS and the published files.
 */
import { BLOCK } from '../numerics/block-scales.ts';
import type { StoredDType } from '../numerics/dtype.ts';
import { FOUR_BLOCK } from '../numerics/nvfp4.ts';
import { type DeepSeekConfig, type DenseConfig, isMoeLayer, type ModelConfig } from './config.ts';

type WeightRole = 'embedding' | 'head' | 'norm' | 'linear' | 'expert' | 'router' | 'bias' | 'scale';

export interface ExpectedWeight {
  readonly name: string;
  readonly shape: readonly number[];
  /** For each axis what decides its size, in the config's own keys: `n_routed_experts`. */
  readonly axes: readonly string[];
  readonly role: WeightRole;
  readonly dtypes: readonly StoredDType[];
  /** `always`; `never`: it may be absent; `with-codes`: a scale, there exactly when its weight has codes. */
  readonly required: 'always' | 'never' | 'with-codes';
  /** Of a scale that comes with codes: the weight that it scales, and the type of the codes. */
  readonly scales?: { readonly weight: string; readonly dtype: StoredDType };
}

/** The block scales of an FP8 tensor are called as it is, and this. */
export const SCALE_SUFFIX = '_scale_inv';

/** Of NVFP4: the e4m3 scale of each 16 values, and the f32 scale of all (as ModelOpt names them). */
export const FOUR_SCALE_SUFFIX = '_scale';
export const FOUR_GLOBAL_SUFFIX = '_scale_2';

/** The weights of the main model, then those of its MTP modules; block scales follow their weights. */
export function weightCatalogue(config: ModelConfig): ExpectedWeight[] {
  const { numHiddenLayers } = config;
  const mtpModules = config.family === 'deepseek' ? config.numNextnPredictLayers : 0;
  return [
    embedding(config, 'model.embed_tokens', 'always'),
    ...range(0, numHiddenLayers).flatMap((layer) => decoderLayer(config, layer)),
    norm('model.norm', hidden(config)),
    head(config, 'lm_head', config.tieWordEmbeddings ? 'never' : 'always'),
    ...range(numHiddenLayers, mtpModules).flatMap((layer) => [
      ...mtpModule(config, layer),
      ...decoderLayer(config, layer),
    ]),
  ];
}

/** A size and the config keys it comes from. */
type Axis = readonly [size: number, key: string];

const FLOATS = ['F32', 'F16', 'BF16'] as const;
const hidden = (config: ModelConfig): Axis => [config.hiddenSize, 'hidden_size'];
const vocab = (config: ModelConfig): Axis => [config.vocabSize, 'vocab_size'];
const heads = (config: ModelConfig): Axis => [config.numAttentionHeads, 'num_attention_heads'];

function decoderLayer(config: ModelConfig, layer: number): ExpectedWeight[] {
  const prefix = `model.layers.${layer}`;
  return [
    norm(`${prefix}.input_layernorm`, hidden(config)),
    ...(config.family === 'deepseek'
      ? latentAttention(config, `${prefix}.self_attn`)
      : groupedAttention(config, `${prefix}.self_attn`)),
    norm(`${prefix}.post_attention_layernorm`, hidden(config)),
    ...(config.family === 'deepseek' && isMoeLayer(config, layer)
      ? mixtureOfExperts(config, `${prefix}.mlp`)
      : feedForward(config, `${prefix}.mlp`, [config.intermediateSize, 'intermediate_size'], 'linear')),
  ];
}

function latentAttention(config: DeepSeekConfig, prefix: string): ExpectedWeight[] {
  const nope: Axis = [config.qkNopeHeadDim, 'qk_nope_head_dim'];
  const rope: Axis = [config.qkRopeHeadDim, 'qk_rope_head_dim'];
  const value: Axis = [config.vHeadDim, 'v_head_dim'];
  const latent: Axis = [config.kvLoraRank, 'kv_lora_rank'];
  const queries = times(heads(config), plus(nope, rope));
  const queryRank: Axis | null = config.qLoraRank === null ? null : [config.qLoraRank, 'q_lora_rank'];
  return [
    ...(queryRank === null
      ? linear(config, `${prefix}.q_proj`, queries, hidden(config))
      : [
          ...linear(config, `${prefix}.q_a_proj`, queryRank, hidden(config)),
          norm(`${prefix}.q_a_layernorm`, queryRank),
          ...linear(config, `${prefix}.q_b_proj`, queries, queryRank),
        ]),
    ...linear(config, `${prefix}.kv_a_proj_with_mqa`, plus(latent, rope), hidden(config)),
    norm(`${prefix}.kv_a_layernorm`, latent),
    ...linear(config, `${prefix}.kv_b_proj`, times(heads(config), plus(nope, value)), latent),
    ...linear(config, `${prefix}.o_proj`, hidden(config), times(heads(config), value)),
  ];
}

function groupedAttention(config: DenseConfig, prefix: string): ExpectedWeight[] {
  const headDim: Axis = [config.headDim, 'head_dim'];
  const queries = times(heads(config), headDim);
  const keys = times([config.numKeyValueHeads, 'num_key_value_heads'], headDim);
  const projection = (name: string, outputs: Axis) => [
    ...linear(config, `${prefix}.${name}`, outputs, hidden(config)),
    ...(config.qkvBias ? [vector(`${prefix}.${name}.bias`, outputs, 'bias')] : []),
  ];
  return [
    ...projection('q_proj', queries),
    ...projection('k_proj', keys),
    ...projection('v_proj', keys),
    ...(config.qkNorm ? [norm(`${prefix}.q_norm`, headDim), norm(`${prefix}.k_norm`, headDim)] : []),
    ...linear(config, `${prefix}.o_proj`, hidden(config), queries),
  ];
}

function mixtureOfExperts(config: DeepSeekConfig, prefix: string): ExpectedWeight[] {
  const experts: Axis = [config.nRoutedExperts, 'n_routed_experts'];
  const width: Axis = [config.moeIntermediateSize, 'moe_intermediate_size'];
  const shared: Axis = [config.nSharedExperts, 'n_shared_experts'];
  return [
    matrix(`${prefix}.gate.weight`, experts, hidden(config), 'router', 'always'),
    ...(config.topkMethod === 'noaux_tc' ? [vector(`${prefix}.gate.e_score_correction_bias`, experts, 'bias')] : []),
    ...range(0, config.nRoutedExperts).flatMap((e) => feedForward(config, `${prefix}.experts.${e}`, width, 'expert')),
    ...(config.nSharedExperts > 0
      ? feedForward(config, `${prefix}.shared_experts`, times(shared, width), 'linear')
      : []),
  ];
}

/** What an MTP module has beside its decoder layer; embedding and head repeat the main model's and may be left out. */
function mtpModule(config: ModelConfig, layer: number): ExpectedWeight[] {
  const prefix = `model.layers.${layer}`;
  return [
    embedding(config, `${prefix}.embed_tokens`, 'never'),
    norm(`${prefix}.enorm`, hidden(config)),
    norm(`${prefix}.hnorm`, hidden(config)),
    matrix(`${prefix}.eh_proj.weight`, hidden(config), times([2, '2'], hidden(config)), 'linear', 'always'),
    norm(`${prefix}.shared_head.norm`, hidden(config)),
    head(config, `${prefix}.shared_head.head`, 'never'),
  ];
}

function feedForward(config: ModelConfig, prefix: string, width: Axis, role: 'linear' | 'expert'): ExpectedWeight[] {
  return [
    ...linear(config, `${prefix}.gate_proj`, width, hidden(config), role),
    ...linear(config, `${prefix}.up_proj`, width, hidden(config), role),
    ...linear(config, `${prefix}.down_proj`, hidden(config), width, role),
  ];
}

function embedding(config: ModelConfig, name: string, required: 'always' | 'never'): ExpectedWeight {
  return matrix(`${name}.weight`, vocab(config), hidden(config), 'embedding', required);
}

function head(config: ModelConfig, name: string, required: 'always' | 'never'): ExpectedWeight {
  return matrix(`${name}.weight`, vocab(config), hidden(config), 'head', required);
}

function norm(name: string, size: Axis): ExpectedWeight {
  return vector(`${name}.weight`, size, 'norm');
}

/** A projection that a quantised checkpoint may store in FP8, and then its scales. */
function linear(
  config: ModelConfig,
  name: string,
  outputs: Axis,
  inputs: Axis,
  role: 'linear' | 'expert' = 'linear',
): ExpectedWeight[] {
  const weight = matrix(`${name}.weight`, outputs, inputs, role, 'always');
  if (config.quantization === null) return [weight];
  if (config.quantization === 'nvfp4') return fourBitLinear(weight);
  const scale: ExpectedWeight = {
    name: `${name}.weight${SCALE_SUFFIX}`,
    shape: weight.shape.map((size) => Math.ceil(size / BLOCK)),
    axes: weight.axes.map((key) => `ceil(${key} / ${BLOCK})`),
    role: 'scale',
    dtypes: ['F32'],
    required: 'with-codes',
    scales: { weight: weight.name, dtype: 'F8_E4M3' },
  };
  return [{ ...weight, dtypes: [...FLOATS, 'F8_E4M3'] }, scale];
}

/** Two codes in a byte (U8 [n, k / 2]) and two levels of scales; the scale of activations is not used here. */
function fourBitLinear(weight: ExpectedWeight): ExpectedWeight[] {
  const [outputs, inputs] = weight.shape as [number, number];
  if (inputs % FOUR_BLOCK !== 0) return [weight];
  const scale = (suffix: string, dtype: StoredDType, shape: number[], axes: string[]): ExpectedWeight => ({
    name: `${weight.name}${suffix}`,
    shape,
    axes,
    role: 'scale',
    dtypes: [dtype],
    required: 'with-codes',
    scales: { weight: weight.name, dtype: 'U8' },
  });
  const [output, input] = weight.axes as [string, string];
  return [
    { ...weight, dtypes: [...FLOATS, 'U8'] },
    scale(FOUR_SCALE_SUFFIX, 'F8_E4M3', [outputs, inputs / FOUR_BLOCK], [output, `${input} / ${FOUR_BLOCK}`]),
    scale(FOUR_GLOBAL_SUFFIX, 'F32', [], []),
    {
      name: weight.name.replace(/weight$/, 'input_scale'),
      shape: [],
      axes: [],
      role: 'scale',
      dtypes: ['F32'],
      required: 'never',
    },
  ];
}

function matrix(
  name: string,
  outputs: Axis,
  inputs: Axis,
  role: WeightRole,
  required: 'always' | 'never',
): ExpectedWeight {
  return { name, shape: [outputs[0], inputs[0]], axes: [outputs[1], inputs[1]], role, dtypes: FLOATS, required };
}

function vector(name: string, size: Axis, role: WeightRole): ExpectedWeight {
  return { name, shape: [size[0]], axes: [size[1]], role, dtypes: FLOATS, required: 'always' };
}

function plus(a: Axis, b: Axis): Axis {
  return [a[0] + b[0], `(${a[1]} + ${b[1]})`];
}

function times(a: Axis, b: Axis): Axis {
  return [a[0] * b[0], `${a[1]} × ${b[1]}`];
}

function range(from: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => from + i);
}
