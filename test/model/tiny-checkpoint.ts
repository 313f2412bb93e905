/**
 * A good checkpoint folder of a tiny DeepSeek-V3 in FP8 with an MTP module, written by the test itself, for tests
 * that then change one thing about it.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseConfig } from '../../src/model/config.ts';
import { weightCatalogue } from '../../src/model/weight-catalogue.ts';
import { DTYPE_BYTES } from '../../src/numerics/dtype.ts';
import { writeSafetensors } from '../../src/numerics/safetensors-writer.ts';

export interface TinyTensor {
  name: string;
  dtype: 'F32' | 'F16' | 'BF16' | 'F8_E4M3' | 'I32';
  shape: number[];
  bytes: Uint8Array;
}

export const tinyConfig = {
  model_type: 'deepseek_v3',
  vocab_size: 16,
  hidden_size: 8,
  intermediate_size: 12,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 64,
  q_lora_rank: 4,
  kv_lora_rank: 6,
  qk_nope_head_dim: 4,
  qk_rope_head_dim: 2,
  v_head_dim: 4,
  n_routed_experts: 4,
  n_shared_experts: 1,
  num_experts_per_tok: 2,
  moe_intermediate_size: 4,
  first_k_dense_replace: 1,
  n_group: 2,
  topk_group: 1,
  num_nextn_predict_layers: 1,
  quantization_config: { quant_method: 'fp8', weight_block_size: [128, 128] },
};

/** Tensors of a config: projections as FP8 where it is quantised, all else BF16; scales 0.5. */
export function tinyTensors(json: object = tinyConfig): TinyTensor[] {
  const fp8 = parseConfig(json, 'config.json').quantization === 'fp8';
  return weightCatalogue(parseConfig(json, 'config.json')).map(({ name, shape, dtypes, role }, which) => {
    const dtype = role === 'scale' ? 'F32' : fp8 && dtypes.includes('F8_E4M3') ? 'F8_E4M3' : 'BF16';
    const elements = shape.reduce((product, size) => product * size);
    const bytes =
      role === 'scale'
        ? new Uint8Array(new Float32Array(elements).fill(0.5).buffer)
        : Uint8Array.from({ length: elements * DTYPE_BYTES[dtype] }, (_, i) => (i * 29 + which) % 0x7f);
    return { name, dtype, shape: [...shape], bytes };
  });
}

/** A folder with config.json and model.safetensors. */
export async function writeCheckpoint(folder: string, config: unknown, tensors: TinyTensor[]): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  await writeSafetensors(join(folder, 'model.safetensors'), tensors);
}

/** A folder with config.json, an index, and the tensors dealt in turn to `shards` files. */
export async function writeShards(folder: string, config: unknown, tensors: TinyTensor[], shards = 2) {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  const weightMap: Record<string, unknown> = {};
  for (let shard = 0; shard < shards; shard++) {
    const file = `model-0000${shard + 1}-of-0000${shards}.safetensors`;
    const dealt = tensors.filter((_, i) => i % shards === shard);
    for (const { name } of dealt) weightMap[name] = file;
    await writeSafetensors(join(folder, file), dealt);
  }
  await writeFile(
    join(folder, 'model.safetensors.index.json'),
    JSON.stringify({ metadata: {}, weight_map: weightMap }),
  );
  return weightMap;
}
