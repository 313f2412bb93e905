/**
 * A checkpoint as a GGUF file for llama.cpp and what is built on it: architecture names, tensor names and layouts as
 * llama.cpp reads them (deepseek2 with the key and value parts of kv_b_proj apart, qwen2, qwen3, llama).
 */
import { float32ToBf16 } from '../numerics/bf16.ts';
import { quantiseQ4, quantiseQ8 } from '../numerics/gguf-blocks.ts';
import { type GgufTensor, type GgufType, type GgufValue, writeGguf } from '../numerics/gguf-writer.ts';
import { type Checkpoint, openCheckpoint, toFloat32 } from './checkpoint.ts';
import { type DeepSeekConfig, type DenseConfig, isMoeLayer, type ModelConfig } from './config.ts';
import { type GgufVocabulary, ggufVocabulary } from './gguf-vocabulary.ts';
import { ropeFrequencies } from './rope.ts';

export type GgufPrecision = 'f32' | 'bf16' | 'q8_0' | 'q4_0';

/** What matrices become, and the format's number for a file of mostly that. */
const PRECISIONS = {
  f32: { matrixType: 'F32', fileType: 0 },
  bf16: { matrixType: 'BF16', fileType: 32 },
  q8_0: { matrixType: 'Q8_0', fileType: 7 },
  q4_0: { matrixType: 'Q4_0', fileType: 2 },
} as const satisfies Record<GgufPrecision, { matrixType: GgufType; fileType: number }>;

/** @throws Error naming what llama.cpp has no place for */
export async function exportGguf(folder: string, path: string, precision: GgufPrecision): Promise<void> {
  const checkpoint = await openCheckpoint(folder);
  const { config } = checkpoint;
  const vocabulary = await ggufVocabulary(folder, config.vocabSize);
  await writeGguf(path, metadata(config, precision, vocabulary), tensorsOf(checkpoint, precision));
}

const u32 = (value: number): GgufValue => ({ type: 'u32', value });
const f32 = (value: number): GgufValue => ({ type: 'f32', value });
const text = (value: string): GgufValue => ({ type: 'string', value });
const bool = (value: boolean): GgufValue => ({ type: 'bool', value });

function metadata(
  config: ModelConfig,
  precision: GgufPrecision,
  vocabulary: GgufVocabulary,
): Record<string, GgufValue> {
  const architecture = config.family === 'deepseek' ? 'deepseek2' : config.modelType;
  const own = config.family === 'deepseek' ? deepSeekKeys(config) : denseKeys(config);
  const common: Record<string, GgufValue> = {
    block_count: u32(config.numHiddenLayers),
    context_length: u32(config.maxPositionEmbeddings),
    embedding_length: u32(config.hiddenSize),
    feed_forward_length: u32(config.intermediateSize),
    vocab_size: u32(config.vocabSize),
    'attention.head_count': u32(config.numAttentionHeads),
    'attention.layer_norm_rms_epsilon': f32(config.rmsNormEps),
    'rope.freq_base': f32(config.ropeTheta),
    ...ropeScalingKeys(config),
    ...own,
  };
  return {
    'general.architecture': text(architecture),
    'general.file_type': u32(PRECISIONS[precision].fileType),
    ...Object.fromEntries(Object.entries(common).map(([key, value]) => [`${architecture}.${key}`, value])),
    ...vocabulary,
  };
}

function deepSeekKeys(config: DeepSeekConfig): Record<string, GgufValue> {
  const keyDim = config.qkNopeHeadDim + config.qkRopeHeadDim;
  return {
    'attention.head_count_kv': u32(1),
    'attention.q_lora_rank': u32(config.qLoraRank ?? 0),
    'attention.kv_lora_rank': u32(config.kvLoraRank),
    'attention.key_length': u32(config.kvLoraRank + config.qkRopeHeadDim),
    'attention.value_length': u32(config.kvLoraRank),
    'attention.key_length_mla': u32(keyDim),
    'attention.value_length_mla': u32(config.vHeadDim),
    'rope.dimension_count': u32(config.qkRopeHeadDim),
    leading_dense_block_count: u32(config.nRoutedExperts === 0 ? config.numHiddenLayers : config.firstKDenseReplace),
    expert_count: u32(config.nRoutedExperts),
    expert_used_count: u32(config.numExpertsPerTok),
    expert_shared_count: u32(config.nSharedExperts),
    expert_feed_forward_length: u32(config.moeIntermediateSize),
    expert_group_count: u32(config.nGroup),
    expert_group_used_count: u32(config.topkGroup),
    expert_weights_scale: f32(config.routedScalingFactor),
    expert_weights_norm: bool(config.normTopkProb),
    expert_gating_func: u32(config.scoringFunc === 'softmax' ? 1 : 2),
  };
}

function denseKeys(config: DenseConfig): Record<string, GgufValue> {
  return {
    'attention.head_count_kv': u32(config.numKeyValueHeads),
    'attention.key_length': u32(config.headDim),
    'attention.value_length': u32(config.headDim),
    'rope.dimension_count': u32(config.headDim),
  };
}

type Yarn = Extract<ModelConfig['ropeScaling'], { type: 'yarn' }>;

function ropeScalingKeys(config: ModelConfig): Record<string, GgufValue> {
  const { ropeScaling, family } = config;
  switch (ropeScaling.type) {
    case 'none':
      return {};
    case 'linear':
      return { 'rope.scaling.type': text('linear'), 'rope.scaling.factor': f32(ropeScaling.factor) };
    case 'yarn':
      refuseOtherYarn(config, ropeScaling);
      return {
        'rope.scaling.type': text('yarn'),
        'rope.scaling.factor': f32(ropeScaling.factor),
        'rope.scaling.original_context_length': u32(ropeScaling.originalMaxPositionEmbeddings),
        ...(family === 'deepseek' ? { 'rope.scaling.yarn_log_multiplier': f32(0.1 * ropeScaling.mscaleAllDim) } : {}),
      };
    case 'llama3':
      return {}; // its bands are a tensor, rope_freqs
  }
}

/** For these architectures llama.cpp fixes YaRN's rotation counts, and what cosines and sines are multiplied by. */
function refuseOtherYarn(config: ModelConfig, { factor, betaFast, betaSlow }: Yarn): void {
  if (betaFast !== 32 || betaSlow !== 1) {
    throw new Error(
      `config.json: rope_scaling has beta_fast ${betaFast} and beta_slow ${betaSlow}: llama.cpp knows 32 and 1 alone`,
    );
  }
  const { magnitude } = ropeFrequencies(config);
  const theirs = config.family === 'deepseek' ? 1 : 0.1 * Math.log(Math.max(factor, 1)) + 1;
  if (Math.abs(magnitude - theirs) < 1e-6) return;
  const needed =
    config.family === 'deepseek'
      ? 'mscale has to equal mscale_all_dim'
      : 'mscale, mscale_all_dim and attention_factor have to be absent';
  throw new Error(
    `config.json: rope_scaling multiplies cosines and sines by ${magnitude.toFixed(4)}, ` +
      `llama.cpp by ${theirs.toFixed(4)}: ${needed}`,
  );
}

function tensorsOf(checkpoint: Checkpoint, precision: GgufPrecision): GgufTensor[] {
  const { config } = checkpoint;
  const tensors: GgufTensor[] = [];
  const put = (name: string, type: GgufType, shape: readonly number[], values: () => Float32Array) => {
    // rows that do not hold whole blocks of 32 stay BF16, as llama.cpp itself does
    const whole = shape.at(-1)! % 32 === 0;
    const settled = (type === 'Q8_0' || type === 'Q4_0') && !whole ? 'BF16' : type;
    tensors.push({ name, type: settled, shape, bytes: () => encode(values(), settled) });
  };
  const { matrixType } = PRECISIONS[precision];
  const copy = (name: string, source: string, type: GgufType = matrixType) => {
    const { shape } = checkpoint.header(source);
    put(name, type, shape, () => toFloat32(checkpoint.tensor(source)));
  };
  const vector = (name: string, source: string) => copy(name, source, 'F32');

  copy('token_embd.weight', 'model.embed_tokens.weight');
  vector('output_norm.weight', 'model.norm.weight');
  if (config.family === 'dense' && config.ropeScaling.type === 'llama3') {
    const { inverseFrequencies } = ropeFrequencies(config);
    // what each frequency is divided by
    const divisors = Float32Array.from(
      inverseFrequencies,
      (frequency, i) => config.ropeTheta ** ((-2 * i) / config.headDim) / frequency,
    );
    put('rope_freqs.weight', 'F32', [divisors.length], () => divisors);
  }
  if (checkpoint.has('lm_head.weight')) copy('output.weight', 'lm_head.weight');
  for (let i = 0; i < config.numHiddenLayers; i++) {
    const from = `model.layers.${i}`;
    const to = `blk.${i}`;
    vector(`${to}.attn_norm.weight`, `${from}.input_layernorm.weight`);
    vector(`${to}.ffn_norm.weight`, `${from}.post_attention_layernorm.weight`);
    copy(`${to}.attn_output.weight`, `${from}.self_attn.o_proj.weight`);
    if (config.family === 'deepseek') {
      latentAttention(checkpoint, config, from, to, { copy, vector, put, matrixType });
    } else {
      groupedAttention(checkpoint, config, from, to, { copy, vector, put, matrixType });
    }
    if (config.family !== 'deepseek' || !isMoeLayer(config, i)) {
      for (const part of ['gate', 'up', 'down']) copy(`${to}.ffn_${part}.weight`, `${from}.mlp.${part}_proj.weight`);
      continue;
    }
    copy(`${to}.ffn_gate_inp.weight`, `${from}.mlp.gate.weight`, 'F32');
    if (config.topkMethod === 'noaux_tc') vector(`${to}.exp_probs_b.bias`, `${from}.mlp.gate.e_score_correction_bias`);
    for (const part of ['gate', 'up', 'down']) {
      const each = Array.from(
        { length: config.nRoutedExperts },
        (_, e) => `${from}.mlp.experts.${e}.${part}_proj.weight`,
      );
      const { shape } = checkpoint.header(each[0]!);
      put(`${to}.ffn_${part}_exps.weight`, matrixType, [each.length, ...shape], () =>
        joined(each.map((name) => toFloat32(checkpoint.tensor(name)))),
      );
      if (config.nSharedExperts > 0)
        copy(`${to}.ffn_${part}_shexp.weight`, `${from}.mlp.shared_experts.${part}_proj.weight`);
    }
  }
  return tensors;
}

interface Put {
  copy(name: string, source: string, type?: GgufType): void;
  vector(name: string, source: string): void;
  put(name: string, type: GgufType, shape: readonly number[], values: () => Float32Array): void;
  readonly matrixType: GgufType;
}

function latentAttention(
  checkpoint: Checkpoint,
  config: DeepSeekConfig,
  from: string,
  to: string,
  { copy, vector, put, matrixType }: Put,
) {
  const { numAttentionHeads: heads, qkNopeHeadDim: nope, vHeadDim, kvLoraRank: rank } = config;
  if (config.qLoraRank === null) {
    copy(`${to}.attn_q.weight`, `${from}.self_attn.q_proj.weight`);
  } else {
    copy(`${to}.attn_q_a.weight`, `${from}.self_attn.q_a_proj.weight`);
    vector(`${to}.attn_q_a_norm.weight`, `${from}.self_attn.q_a_layernorm.weight`);
    copy(`${to}.attn_q_b.weight`, `${from}.self_attn.q_b_proj.weight`);
  }
  copy(`${to}.attn_kv_a_mqa.weight`, `${from}.self_attn.kv_a_proj_with_mqa.weight`);
  vector(`${to}.attn_kv_a_norm.weight`, `${from}.self_attn.kv_a_layernorm.weight`);
  const kvB = () => toFloat32(checkpoint.tensor(`${from}.self_attn.kv_b_proj.weight`));
  const perHead = (nope + vHeadDim) * rank;
  // keys transposed: [heads, rank, nope], so that a query is taken into the latent space by a plain product
  // not quantised: where llama.cpp uses AMX it aborts on Q8_0 matrices of three dimensions here
  const type = matrixType === 'F32' ? 'F32' : 'BF16';
  put(`${to}.attn_k_b.weight`, type, [heads, rank, nope], () => {
    const all = kvB();
    const out = new Float32Array(heads * rank * nope);
    for (let h = 0; h < heads; h++) {
      for (let n = 0; n < nope; n++) {
        for (let r = 0; r < rank; r++) out[(h * rank + r) * nope + n] = all[h * perHead + n * rank + r]!;
      }
    }
    return out;
  });
  put(`${to}.attn_v_b.weight`, type, [heads, vHeadDim, rank], () => {
    const all = kvB();
    return joined(Array.from({ length: heads }, (_, h) => all.subarray(h * perHead + nope * rank, (h + 1) * perHead)));
  });
}

function groupedAttention(
  checkpoint: Checkpoint,
  config: DenseConfig,
  from: string,
  to: string,
  { copy, vector, put, matrixType }: Put,
) {
  for (const part of ['q', 'k', 'v'] as const) {
    const source = `${from}.self_attn.${part}_proj.weight`;
    if (config.modelType === 'llama' && part !== 'v') {
      const heads = part === 'q' ? config.numAttentionHeads : config.numKeyValueHeads;
      const { shape } = checkpoint.header(source);
      // llama.cpp turns neighbouring pairs for this architecture, the checkpoint halves
      put(`${to}.attn_${part}.weight`, matrixType, shape, () =>
        pairedRows(toFloat32(checkpoint.tensor(source)), heads, config.headDim, config.hiddenSize),
      );
    } else {
      copy(`${to}.attn_${part}.weight`, source);
    }
    if (config.qkvBias) vector(`${to}.attn_${part}.bias`, `${from}.self_attn.${part}_proj.bias`);
  }
  if (config.qkNorm) {
    for (const part of ['q', 'k']) vector(`${to}.attn_${part}_norm.weight`, `${from}.self_attn.${part}_norm.weight`);
  }
}

/** Rows i and i + d/2 of each head become rows 2i and 2i + 1. */
function pairedRows(rows: Float32Array, heads: number, headDim: number, cols: number): Float32Array {
  const out = new Float32Array(rows.length);
  for (let h = 0; h < heads; h++) {
    for (let i = 0; i < headDim; i++) {
      const to = h * headDim + (i < headDim / 2 ? 2 * i : 2 * (i - headDim / 2) + 1);
      const from = h * headDim + i;
      out.set(rows.subarray(from * cols, (from + 1) * cols), to * cols);
    }
  }
  return out;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function encode(values: Float32Array, type: GgufType): Uint8Array {
  if (type === 'Q8_0') return quantiseQ8(values);
  if (type === 'Q4_0') return quantiseQ4(values);
  if (type === 'F32') return new Uint8Array(values.slice().buffer);
  const bits = float32ToBf16(values);
  return new Uint8Array(bits.buffer, bits.byteOffset, bits.byteLength);
}
