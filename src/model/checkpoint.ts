/**
 * A published checkpoint folder, opened: its configuration and its tensors, every name, shape and type checked
 * against what the configuration calls for. Weights are mapped, and read when someone looks at them.
 */
import { bf16ToFloat32 } from '../numerics/bf16.ts';
import { dequantiseBlocks } from '../numerics/block-scales.ts';
import { DTYPE_BYTES } from '../numerics/dtype.ts';
import { indexOfE4m3NaN } from '../numerics/e4m3.ts';
import { f16ToFloat32 } from '../numerics/f16.ts';
import { dequantiseFours, FOUR_BLOCK, type Fours } from '../numerics/nvfp4.ts';
import type { SafetensorsTensor } from '../numerics/safetensors.ts';
import { CheckpointError, readConfigJson, type TensorInFile, tensorsOfFolder } from './checkpoint-files.ts';
import { checkAgainstCatalogue, settleOptionalParts } from './checkpoint-match.ts';
import { type ModelConfig, parseConfig } from './config.ts';
import { FOUR_GLOBAL_SUFFIX, FOUR_SCALE_SUFFIX, SCALE_SUFFIX, weightCatalogue } from './weight-catalogue.ts';

export interface Checkpoint {
  readonly folder: string;
  readonly config: ModelConfig;
  /** Names of the weights, block scales not among them (they come with their weights). */
  readonly names: readonly string[];
  has(name: string): boolean;
  /** Type and shape of a weight, without a look at it. @throws CheckpointError when there is no such weight */
  header(name: string): TensorHeader;
  /** @throws CheckpointError when there is no such weight, or its FP8 codes or scales hold what no weight can be */
  tensor(name: string): StoredTensor;
  /** As `tensor`, FP8 codes unread, so that whoever reads them must see to it that none is NaN. */
  unscanned(name: string): StoredTensor;
  /** Begins to read a tensor from disk. */
  prefetch(name: string): void;
  /** Gives back the memory that reading a tensor took; it can be read again. */
  release(name: string): void;
  /** What was found and set aside, in the words of a message to the user. */
  readonly notes: readonly string[];
}

interface TensorHeader {
  readonly name: string;
  /** NVFP4: U8 in the file, two codes in a byte; the shape is that of the values. */
  readonly dtype: 'F32' | 'F16' | 'BF16' | 'F8_E4M3' | 'NVFP4';
  readonly shape: readonly number[];
  readonly byteLength: number;
}

export interface StoredTensor extends Omit<TensorHeader, 'byteLength'> {
  /** Row-major, aligned to the element size: a view of the mapped file, or a copy where the file is not aligned. */
  readonly bytes: Uint8Array;
  /** F8_E4M3 only: [ceil(rows / 128), ceil(cols / 128)]. */
  readonly scales?: Float32Array;
  /** NVFP4 only; the codes are `bytes`. */
  readonly fours?: Omit<Fours, 'codes'>;
}

/**
 * @param folder with config.json and model.safetensors, or shards and their index
 * @throws ConfigError, SafetensorsError or CheckpointError naming file and tensor or field, expected and found
 */
export async function openCheckpoint(folder: string): Promise<Checkpoint> {
  const declared = parseConfig(await readConfigJson(folder), 'config.json');
  const { tensors: found, source } = await tensorsOfFolder(folder);
  const { config, notes } = settleOptionalParts(declared, found);
  const catalogue = weightCatalogue(config);
  checkAgainstCatalogue(catalogue, found, source);

  const checked = new Map<string, StoredTensor>();
  // A tied head may be stored, but the embedding is the head.
  const isTied = (role: string) => role === 'head' && config.tieWordEmbeddings;
  const names = catalogue
    .filter(({ name, role }) => role !== 'scale' && !isTied(role) && found.has(name))
    .map(({ name }) => name);
  const known = new Set(names);
  const here = (name: string): TensorInFile => {
    if (!known.has(name)) throw new CheckpointError(`${folder}: has no tensor "${name}"`);
    return found.get(name)!;
  };
  const unscanned = (name: string) => {
    const { tensor } = here(name);
    if (tensor.dtype === 'U8') return fourBitTensor(tensor, found);
    return storedTensor(tensor, found.get(`${name}${SCALE_SUFFIX}`));
  };
  return {
    folder,
    config,
    names,
    notes,
    has: (name) => known.has(name),
    header: (name) => {
      const { dtype, shape } = typeAndShape(here(name).tensor);
      const valueBytes = dtype === 'NVFP4' ? 0.5 + 1 / FOUR_BLOCK : DTYPE_BYTES[dtype];
      return { name, dtype, shape, byteLength: shape.reduce((product, size) => product * size, valueBytes) };
    },
    tensor(name) {
      const earlier = checked.get(name);
      if (earlier) return earlier;
      const tensor = unscanned(name);
      refuseNaN(here(name).file, tensor);
      checked.set(name, tensor);
      return tensor;
    },
    unscanned,
    prefetch: (name) => here(name).tensor.advise('soon'),
    release(name) {
      checked.delete(name);
      here(name).tensor.advise('done');
    },
  };
}

/** Row-major f32 values of a stored tensor; FP8 is multiplied by its block scales. */
export function toFloat32({ dtype, shape, bytes, scales, fours }: StoredTensor): Float32Array {
  const { buffer, byteOffset, byteLength } = bytes;
  switch (dtype) {
    case 'F32':
      return new Float32Array(buffer, byteOffset, byteLength / 4).slice();
    case 'BF16':
      return bf16ToFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case 'F16':
      return f16ToFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case 'F8_E4M3':
      return dequantiseBlocks(bytes, scales!, shape[0]!, shape[1]!);
    case 'NVFP4':
      return dequantiseFours({ ...fours!, codes: bytes });
  }
}

/** What the catalogue has let in. */
function typeAndShape({ dtype, shape }: SafetensorsTensor): Pick<StoredTensor, 'dtype' | 'shape'> {
  return dtype === 'U8'
    ? { dtype: 'NVFP4', shape: [shape[0]!, 2 * shape[1]!] }
    : { dtype: dtype as StoredTensor['dtype'], shape };
}

function fourBitTensor(tensor: SafetensorsTensor, found: ReadonlyMap<string, TensorInFile>): StoredTensor {
  const scale = found.get(`${tensor.name}${FOUR_SCALE_SUFFIX}`)!;
  const whole = found.get(`${tensor.name}${FOUR_GLOBAL_SUFFIX}`)!;
  const scales = scale.tensor.bytes;
  const refuse = ({ file, tensor: { name } }: TensorInFile, what: string) => {
    throw new CheckpointError(`${file}: tensor "${name}" is ${what}, expected a positive number. The file is damaged`);
  };
  const bad = scales.findIndex((code) => code > 0x7e);
  if (bad >= 0) refuse(scale, `negative or NaN at ${position(bad, scale.tensor.shape[1]!)}`);
  const global = new Float32Array(aligned(whole.tensor).slice().buffer)[0]!;
  if (!(global > 0 && global < Number.POSITIVE_INFINITY)) refuse(whole, String(global));
  return { name: tensor.name, ...typeAndShape(tensor), bytes: tensor.bytes, fours: { scales, global } };
}

function storedTensor(tensor: SafetensorsTensor, scale: TensorInFile | undefined): StoredTensor {
  const { name } = tensor;
  const { dtype, shape } = typeAndShape(tensor);
  const bytes = aligned(tensor);
  if (!scale) return { name, dtype, shape, bytes };

  const scaleBytes = aligned(scale.tensor);
  const scales = new Float32Array(scaleBytes.buffer, scaleBytes.byteOffset, scaleBytes.byteLength / 4);
  const bad = scales.findIndex((value) => !(value > 0 && value < Number.POSITIVE_INFINITY));
  if (bad >= 0) {
    const found = `${scales[bad]} at ${position(bad, scale.tensor.shape[1]!)}`;
    throw new CheckpointError(
      `${scale.file}: tensor "${scale.tensor.name}" is ${found}, expected a positive number. The file is damaged`,
    );
  }
  return { name, dtype, shape, bytes, scales };
}

function refuseNaN(file: string, { name, dtype, shape, bytes }: StoredTensor): void {
  const nan = dtype === 'F8_E4M3' ? indexOfE4m3NaN(bytes) : -1;
  if (nan < 0) return;
  const at = position(nan, shape[1]!);
  throw new CheckpointError(`${file}: tensor "${name}" is NaN at ${at}, expected numbers. The file is damaged`);
}

const position = (index: number, cols: number) => `[${Math.floor(index / cols)}, ${index % cols}]`;

function aligned({ dtype, bytes }: SafetensorsTensor): Uint8Array {
  return bytes.byteOffset % DTYPE_BYTES[dtype] === 0 ? bytes : bytes.slice();
}
