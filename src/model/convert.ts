/**
 * A checkpoint folder in another precision: projections change their type, router, norms, biases, embedding and head
 * stay as they are. One tensor is in memory at a time; the new folder appears whole or not at all.
 */
import { randomBytes } from 'node:crypto';
import { copyFile, mkdir, readdir, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { float32ToBf16 } from '../numerics/bf16.ts';
import { BLOCK, blockCodes, blockScales } from '../numerics/block-scales.ts';
import { replaceFile } from '../numerics/replace-file.ts';
import type { TensorToWrite } from '../numerics/safetensors-writer.ts';
import { openCheckpoint, type StoredTensor, toFloat32 } from './checkpoint.ts';
import { CheckpointError, readConfigJson } from './checkpoint-files.ts';
import { writeShards } from './checkpoint-shards.ts';
import type { ModelConfig } from './config.ts';
import { SCALE_SUFFIX, weightCatalogue } from './weight-catalogue.ts';

export type WeightPrecision = 'fp8' | 'bf16';

export interface ConvertOptions {
  readonly to: WeightPrecision;
  /** Most bytes of weights in one file. */
  readonly shardBytes?: number;
  /** Called as tensors are written, with bytes of the result. */
  readonly onProgress?: (written: number, total: number) => void;
}

/** What config.json says of its weights, as DeepSeek publishes it; null for plain ones. */
const QUANTIZATION: Record<WeightPrecision, object | null> = {
  bf16: null,
  fp8: { activation_scheme: 'dynamic', fmt: 'e4m3', quant_method: 'fp8', weight_block_size: [BLOCK, BLOCK] },
};

const SHARD_BYTES = 4 * 2 ** 30;

/**
 * Writes the checkpoint of `folder` to `out`, a folder that is not there yet.
 * @throws CheckpointError when `out` is there or the weights are in that precision already
 */
export async function convertCheckpoint(folder: string, out: string, options: ConvertOptions): Promise<void> {
  const { to, shardBytes = SHARD_BYTES, onProgress = () => {} } = options;
  const checkpoint = await openCheckpoint(folder);
  const projections = new Set(projectionsOf(checkpoint.config));
  const isProjection = (name: string) => projections.has(name);
  const already = to === 'fp8' ? 'F8_E4M3' : 'BF16';
  if (!checkpoint.names.some((name) => isProjection(name) && checkpoint.header(name).dtype !== already)) {
    throw new CheckpointError(`${folder}: all projections are ${already} already, so there is nothing to convert`);
  }
  const tensors = checkpoint.names.flatMap((name): TensorToWrite[] => {
    const { dtype, shape } = checkpoint.header(name);
    const look = <T>(use: (stored: StoredTensor) => T): T => {
      const result = use(checkpoint.tensor(name));
      checkpoint.release(name);
      return result;
    };
    const plain = (type: 'F32' | 'F16' | 'BF16', bytes: (stored: StoredTensor) => Uint8Array) => [
      { name, dtype: type, shape, bytes: () => look(bytes) },
    ];
    const fp8 = (scales: (stored: StoredTensor) => Float32Array, codes: (stored: StoredTensor) => Uint8Array) => {
      const grid = shape.map((size) => Math.ceil(size / BLOCK));
      return [
        { name: `${name}${SCALE_SUFFIX}`, dtype: 'F32' as const, shape: grid, bytes: () => bytesOf(look(scales)) },
        { name, dtype: 'F8_E4M3' as const, shape, bytes: () => look(codes) },
      ];
    };
    if (dtype === 'F8_E4M3' && to === 'fp8')
      return fp8(
        (stored) => stored.scales!.slice(),
        ({ bytes }) => bytes.slice(),
      );
    if (dtype !== 'F8_E4M3' && !isProjection(name)) return plain(dtype, ({ bytes }) => bytes.slice());
    if (to === 'bf16') return plain('BF16', (stored) => bytesOf(float32ToBf16(toFloat32(stored))));
    const [rows, cols] = shape as [number, number];
    // the scales of a file are written before its codes, and are kept for them
    let made: Float32Array | undefined;
    const scales = (values: Float32Array) => {
      made ??= blockScales(values, rows, cols);
      return made;
    };
    return fp8(
      (stored) => scales(toFloat32(stored)),
      (stored) => {
        const values = toFloat32(stored);
        return blockCodes(values, scales(values), rows, cols);
      },
    );
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

/** The weights that published FP8 checkpoints hold as FP8. */
function projectionsOf(config: ModelConfig): string[] {
  const quantised = weightCatalogue({ ...config, quantization: 'fp8' });
  return quantised.flatMap(({ name, dtypes }) => (dtypes.includes('F8_E4M3') ? [name] : []));
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
