/**
 * A checkpoint folder in another precision: projections change their type, router, norms, biases, embedding and head
 * stay as they are. One tensor is in memory at a time; the new folder appears whole or not at all.
 */
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { float32ToBf16 } from '../numerics/bf16.ts';
import { BLOCK, blockCodes, blockScales } from '../numerics/block-scales.ts';
import { FOUR_BLOCK, globalScale, quantiseFours } from '../numerics/nvfp4.ts';
import { replaceFile } from '../numerics/replace-file.ts';
import type { TensorToWrite } from '../numerics/safetensors-writer.ts';
import { openCheckpoint, type StoredTensor, toFloat32 } from './checkpoint.ts';
import { CheckpointError, readConfigJson } from './checkpoint-files.ts';
import { writeShards } from './checkpoint-shards.ts';
import type { ModelConfig } from './config.ts';
import { FOUR_GLOBAL_SUFFIX, FOUR_SCALE_SUFFIX, SCALE_SUFFIX, weightCatalogue } from './weight-catalogue.ts';

export type WeightPrecision = 'fp8' | 'bf16' | 'nvfp4';

export interface ConvertOptions {
  readonly to: WeightPrecision;
  /** Most bytes of weights in one file. */
  readonly shardBytes?: number;
  /** Called as tensors are written, with bytes of the result. */
  readonly onProgress?: (written: number, total: number) => void;
}

/** What config.json says of its weights, as DeepSeek and ModelOpt write it; null for plain ones. */
const QUANTIZATION: Record<WeightPrecision, object | null> = {
  bf16: null,
  fp8: { activation_scheme: 'dynamic', fmt: 'e4m3', quant_method: 'fp8', weight_block_size: [BLOCK, BLOCK] },
  nvfp4: {
    quant_method: 'modelopt',
    quant_algo: 'NVFP4',
    config_groups: {
      group_0: { targets: ['Linear'], weights: { type: 'float', num_bits: 4, group_size: FOUR_BLOCK, dynamic: false } },
    },
    ignore: ['lm_head', '*.kv_b_proj', '*.mlp.gate', '*.eh_proj'],
  },
};

const SHARD_BYTES = 4 * 2 ** 30;

/**
 * Writes the checkpoint of `folder` to `out`, a folder that is not there yet.
 * @throws CheckpointError when `out` is there or the weights are in that precision already
 */
export async function convertCheckpoint(folder: string, out: string, options: ConvertOptions): Promise<void> {
  const { to, shardBytes = SHARD_BYTES, onProgress = () => {} } = options;
  const checkpoint = await openCheckpoint(folder);
  const projections = new Set(projectionsOf(checkpoint.config, to));
  const dtypeOf = (name: string) => (projections.has(name) ? PROJECTION_DTYPE[to] : null);
  const changes = (name: string) => dtypeOf(name) !== null && checkpoint.header(name).dtype !== dtypeOf(name);
  if (!checkpoint.names.some(changes)) {
    throw new CheckpointError(`${folder}: all projections are ${PROJECTION_DTYPE[to]} already: nothing to convert`);
  }
  const tensors = checkpoint.names.flatMap((name): TensorToWrite[] => {
    const { dtype, shape } = checkpoint.header(name);
    const look: Look = (use) => {
      const result = use(checkpoint.tensor(name));
      checkpoint.release(name);
      return result;
    };
    const wanted = dtypeOf(name) ?? (dtype === 'F8_E4M3' || dtype === 'NVFP4' ? 'BF16' : dtype);
    switch (wanted) {
      case 'F8_E4M3':
        return fp8Tensors(name, shape, look);
      case 'NVFP4':
        return fourBitTensors(name, shape, look);
      default: {
        const bytes = (stored: StoredTensor) =>
          stored.dtype === wanted ? stored.bytes.slice() : bytesOf(float32ToBf16(toFloat32(stored)));
        return [{ name, dtype: wanted, shape, bytes: () => look(bytes) }];
      }
    }
  });
  const json = { ...((await readConfigJson(folder)) as object), quantization_config: QUANTIZATION[to] ?? undefined };
  await wholeFolder(out, async (aside) => {
    await writeShards(aside, tensors, { shardBytes, onProgress });
    await replaceFile(path.join(aside, 'config.json'), (file) => file.writeFile(`${JSON.stringify(json, null, 2)}\n`));
    for (const name of await readdir(folder)) {
      if (ACCOMPANYING.test(name)) await copyFile(path.join(folder, name), path.join(aside, name));
    }
  });
}

const PROJECTION_DTYPE = { bf16: 'BF16', fp8: 'F8_E4M3', nvfp4: 'NVFP4' } as const;

/**
 * The weights that published FP8 checkpoints hold as FP8. In four bits kv_b_proj is not among them, since attention
 * takes it apart by heads and turns a half of it around; nor rows that do not divide into blocks.
 */
function projectionsOf(config: ModelConfig, to: WeightPrecision): string[] {
  const quantised = weightCatalogue({ ...config, quantization: to === 'nvfp4' ? 'nvfp4' : 'fp8' });
  const code = to === 'nvfp4' ? 'U8' : 'F8_E4M3';
  return quantised.flatMap(({ name, dtypes }) =>
    dtypes.includes(code) && !(to === 'nvfp4' && name.endsWith('.kv_b_proj.weight')) ? [name] : [],
  );
}

/** Looks at a stored tensor and gives its memory back. */
type Look = <T>(use: (stored: StoredTensor) => T) => T;

/** Codes and scales; as they are where they are stored so. */
function fp8Tensors(name: string, shape: readonly number[], look: Look): TensorToWrite[] {
  const [rows, cols] = shape as [number, number];
  // the scales of a file are written before its codes, and are kept for them
  let made: Float32Array | undefined;
  const scales = (stored: StoredTensor) => {
    made ??= stored.scales?.slice() ?? blockScales(toFloat32(stored), rows, cols);
    return made;
  };
  const codes = (stored: StoredTensor) =>
    stored.scales ? stored.bytes.slice() : blockCodes(toFloat32(stored), scales(stored), rows, cols);
  const grid = shape.map((size) => Math.ceil(size / BLOCK));
  return [
    { name: `${name}${SCALE_SUFFIX}`, dtype: 'F32', shape: grid, bytes: () => bytesOf(look(scales)) },
    { name, dtype: 'F8_E4M3', shape, bytes: () => look(codes) },
  ];
}

function fourBitTensors(name: string, shape: readonly number[], look: Look): TensorToWrite[] {
  const [rows, cols] = shape as [number, number];
  let made: number | undefined;
  const global = (stored: StoredTensor) => {
    made ??= stored.fours?.global ?? globalScale(toFloat32(stored));
    return made;
  };
  const fours = (stored: StoredTensor) =>
    stored.fours
      ? { codes: stored.bytes.slice(), scales: stored.fours.scales.slice() }
      : quantiseFours(toFloat32(stored), global(stored));
  return [
    {
      name: `${name}${FOUR_GLOBAL_SUFFIX}`,
      dtype: 'F32',
      shape: [],
      bytes: () => bytesOf(Float32Array.of(look(global))),
    },
    { name, dtype: 'U8', shape: [rows, cols / 2], bytes: () => look((stored) => fours(stored).codes) },
    {
      name: `${name}${FOUR_SCALE_SUFFIX}`,
      dtype: 'F8_E4M3',
      shape: [rows, cols / FOUR_BLOCK],
      bytes: () => look((stored) => fours(stored).scales),
    },
  ];
}

/** Tokenizer, templates, generation settings, licence and model card; not the weights, their index and the config. */
const ACCOMPANYING = /^(?!config\.json$|.*\.index\.json$).*\.(json|jinja|model|txt|md)$|^LICENSE/;

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array | Uint16Array) =>
  new Uint8Array(buffer, byteOffset, byteLength);

/** Calls `write` with a new folder beside `out` that takes its name when all is written. */
async function wholeFolder(out: string, write: (aside: string) => Promise<void>): Promise<void> {
  const target = path.resolve(out);
  const aside = `${target}.${randomBytes(6).toString('hex')}.part`;
  const taken = await readdir(target).then(
    (names) => names.length > 0,
    () => false,
  );
  if (taken) throw new CheckpointError(`${out}: is there and not empty. Choose a folder that does not exist`);
  await mkdir(aside, { recursive: true });
  try {
    await write(aside);
    await rename(aside, target);
  } catch (error) {
    await rm(aside, { recursive: true, force: true });
    throw error;
  }
}
