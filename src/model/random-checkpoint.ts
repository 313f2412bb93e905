/** Seeded random checkpoints of published shapes, so that anyone can measure a model's speed without its weights. */
import { mkdir } from 'node:fs/promises';
import path from 'node:path';
import { float32ToBf16 } from '../numerics/bf16.ts';
import { BLOCK } from '../numerics/block-scales.ts';
import { float32ToE4m3 } from '../numerics/e4m3.ts';
import { replaceFile } from '../numerics/replace-file.ts';
import { type TensorToWrite, writeSafetensors } from '../numerics/safetensors-writer.ts';
import { type ModelConfig, parseConfig, toConfigJson } from './config.ts';
import { SCALE_SUFFIX, weightCatalogue } from './weight-catalogue.ts';

const deepSeekV2 = {
  architectures: ['DeepseekV2ForCausalLM'],
  model_type: 'deepseek_v2',
  attention_bias: false,
  first_k_dense_replace: 1,
  hidden_act: 'silu',
  initializer_range: 0.02,
  max_position_embeddings: 163840,
  moe_layer_freq: 1,
  n_group: 1,
  topk_group: 1,
  topk_method: 'greedy',
  scoring_func: 'softmax',
  norm_topk_prob: false,
  routed_scaling_factor: 1,
  rms_norm_eps: 1e-6,
  rope_theta: 10000,
  tie_word_embeddings: false,
  bos_token_id: 0,
  eos_token_id: 1,
  torch_dtype: 'bfloat16',
  q_lora_rank: null,
  kv_lora_rank: 512,
  qk_nope_head_dim: 128,
  qk_rope_head_dim: 64,
  v_head_dim: 128,
  num_attention_heads: 16,
  num_key_value_heads: 16,
  n_routed_experts: 64,
  n_shared_experts: 2,
  num_experts_per_tok: 6,
};

/** Shapes by name: DeepSeek-V2-Lite as published, and two smaller ones for benchmarks. */
export const SHAPES: Readonly<Record<'v2-lite' | 'medium' | 'small', object>> = {
  'v2-lite': {
    ...deepSeekV2,
    vocab_size: 102400,
    hidden_size: 2048,
    intermediate_size: 10944,
    moe_intermediate_size: 1408,
    num_hidden_layers: 27,
    rope_scaling: {
      type: 'yarn',
      factor: 40,
      original_max_position_embeddings: 4096,
      beta_fast: 32,
      beta_slow: 1,
      mscale: 0.707,
      mscale_all_dim: 0.707,
    },
  },
  medium: {
    ...deepSeekV2,
    vocab_size: 32768,
    hidden_size: 1024,
    intermediate_size: 2816,
    moe_intermediate_size: 512,
    num_hidden_layers: 12,
  },
  small: {
    ...deepSeekV2,
    architectures: ['DeepseekV3ForCausalLM'],
    model_type: 'deepseek_v3',
    vocab_size: 8192,
    hidden_size: 384,
    intermediate_size: 1024,
    moe_intermediate_size: 64,
    num_hidden_layers: 8,
    num_attention_heads: 6,
    num_key_value_heads: 6,
    q_lora_rank: 192,
    kv_lora_rank: 128,
    qk_nope_head_dim: 64,
    qk_rope_head_dim: 32,
    v_head_dim: 64,
    n_routed_experts: 32,
    n_shared_experts: 1,
    num_experts_per_tok: 4,
    topk_method: 'noaux_tc',
    scoring_func: 'sigmoid',
    norm_topk_prob: true,
    routed_scaling_factor: 2.5,
    num_nextn_predict_layers: 0,
  },
};

/**
 * Writes config.json and model.safetensors with normal weights of the config's initializer_range (norms 1).
 * @param dtype `fp8`: linear weights as e4m3 with 128×128 block scales, the rest BF16
 */
export async function writeRandomCheckpoint(
  folder: string,
  configJson: object,
  { dtype, seed }: { dtype: 'fp8' | 'bf16'; seed: number },
): Promise<ModelConfig> {
  const { quantization_config: _, ...plain } = configJson as Record<string, unknown>;
  const fp8 = { quant_method: 'fp8', fmt: 'e4m3', weight_block_size: [BLOCK, BLOCK], activation_scheme: 'dynamic' };
  const config = parseConfig(dtype === 'fp8' ? { ...plain, quantization_config: fp8 } : plain, 'config.json');
  const { initializerRange } = config;
  const draw = randomDraws(seed);
  const catalogue = weightCatalogue(config).filter(({ required }) => required !== 'never');
  const scaled = new Set(catalogue.filter(({ role }) => role === 'scale').map(({ name }) => name));
  const tensors: TensorToWrite[] = catalogue.map(({ name, shape, role }) => {
    const count = shape.reduce((a, b) => a * b, 1);
    if (role === 'scale') {
      // codes are drawn with a deviation of 64: their product has initializer_range
      return { name, dtype: 'F32', shape, bytes: () => floats(new Float32Array(count).fill(initializerRange / 64)) };
    }
    if (role === 'bias') {
      return { name, dtype: 'F32', shape, bytes: () => floats(draw.values(count, initializerRange)) };
    }
    if (role === 'norm') {
      return { name, dtype: 'BF16', shape, bytes: () => halves(float32ToBf16(new Float32Array(count).fill(1))) };
    }
    if (scaled.has(name.replace(/\.weight$/, `.weight${SCALE_SUFFIX}`))) {
      return { name, dtype: 'F8_E4M3', shape, bytes: () => draw.fp8(count) };
    }
    return { name, dtype: 'BF16', shape, bytes: () => halves(draw.bf16(count, initializerRange)) };
  });
  await mkdir(folder, { recursive: true });
  await writeSafetensors(path.join(folder, 'model.safetensors'), tensors, { format: 'pt' });
  const json = `${JSON.stringify(toConfigJson(config), null, 2)}\n`;
  await replaceFile(path.join(folder, 'config.json'), (file) => file.writeFile(json));
  return config;
}

const floats = (values: Float32Array) => new Uint8Array(values.buffer);
const halves = (values: Uint16Array) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);

/** Normal numbers from a table of 65,536 spread evenly over the distribution, picked by xorshift: fast enough for 16 GB. */
function randomDraws(seed: number) {
  const TABLE = 1 << 16;
  const normal = Float32Array.from({ length: TABLE }, (_, i) => spreadNormal((i + 0.5) / TABLE, i * GOLDEN_RATIO));
  const codes = Uint8Array.from(normal, (value) => float32ToE4m3(value * 64));
  let state = Math.imul(seed + 1, 0x9e3779b1) | 1;
  const fill = <T extends Float32Array | Uint16Array | Uint8Array>(out: T, table: T): T => {
    let s = state;
    for (let i = 0; i < out.length; i++) {
      s ^= s << 13;
      s ^= s >>> 17;
      s ^= s << 5;
      out[i] = table[(s >>> 8) & (TABLE - 1)]!;
    }
    state = s;
    return out;
  };
  return {
    values: (count: number, deviation: number) =>
      fill(new Float32Array(count), normal.map((value) => value * deviation) as Float32Array),
    bf16: (count: number, deviation: number) =>
      fill(new Uint16Array(count), float32ToBf16(normal.map((value) => value * deviation))),
    fp8: (count: number) => fill(new Uint8Array(count), codes),
  };
}

const GOLDEN_RATIO = (1 + Math.sqrt(5)) / 2;

/** Box–Muller of two numbers that spread evenly: a share in (0, 1) and a number of turns. */
const spreadNormal = (share: number, turns: number) => Math.sqrt(-2 * Math.log(share)) * Math.cos(2 * Math.PI * turns);
