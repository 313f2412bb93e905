/**
 * A published checkpoint folder, opened: its configuration and its tensors, every name, shape and type checked
 * against what the configuration calls for. Weights are mapped, and read when someone looks at them.
 */
import { bf16ToFloat32 } from '../numerics/bf16.ts';
import { dequantiseBlocks } from '../numerics/block-scales.ts';
import { DTYPE_BYTES } from '../numerics/dtype.ts';
import { indexOfE4m3NaN } from '../numerics/e4m3.ts';
import { f16ToFloat32 } from '../numerics/f16.ts';
import { CheckpointError, readConfigJson, type TensorInFile, tensorsOfFolder } from './checkpoint-files.ts';
import { type ModelConfig, parseConfig } from './config.ts';
import { type ExpectedWeight, weightCatalogue } from './weight-catalogue.ts';

export interface Checkpoint {
  readonly folder: string;
  readonly config: ModelConfig;
  /** Names of the weights, block scales not among them (they come with their weights). */
  readonly names: readonly string[];
  has(name: string): boolean;
  /** @throws CheckpointError when there is no such weight, or its FP8 codes or scales hold what no weight can be */
  tensor(name: string): StoredTensor;
  /** What was found and set aside, in the words of a message to the user. */
  readonly notes: readonly string[];
}

export interface StoredTensor {
  readonly name: string;
  readonly dtype: 'F32' | 'F16' | 'BF16' | 'F8_E4M3';
  readonly shape: readonly number[];
  /** Row-major, aligned to the element size: a view of the mapped file, or a copy where the file is not aligned. */
  readonly bytes: Uint8Array;
  /** F8_E4M3 only: [ceil(rows / 128), ceil(cols / 128)]. */
  readonly scales?: Float32Array;
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
  for (const expected of catalogue) checkTensor(expected, found, source);
  checkNothingIsLeft(catalogue, found);

  const checked = new Map<string, StoredTensor>();
  // A tied head may be stored, but the embedding is the head.
  const isTied = (role: string) => role === 'head' && config.tieWordEmbeddings;
  const names = catalogue
    .filter(({ name, role }) => role !== 'scale' && !isTied(role) && found.has(name))
    .map(({ name }) => name);
  const known = new Set(names);
  return {
    folder,
    config,
    names,
    notes,
    has: (name) => known.has(name),
    tensor(name) {
      const earlier = checked.get(name);
      if (earlier) return earlier;
      if (!known.has(name)) throw new CheckpointError(`${folder}: has no tensor "${name}"`);
      const tensor = storedTensor(found.get(name)!, found.get(scaleOf(name)));
      checked.set(name, tensor);
      return tensor;
    },
  };
}

/** Row-major f32 values of a stored tensor; FP8 is multiplied by its block scales. */
export function toFloat32({ dtype, shape, bytes, scales }: StoredTensor): Float32Array {
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
  }
}

/** Buffers that some tools save and every reader computes from the config. */
const HARMLESS = /^model\.(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)$/;

/**
 * Parts that files and configs are known to disagree about. An MTP
 * module that the config does not name is left aside whole; one that the config names and no file has (tools that
 * re-save a model drop it) is taken out of the config. Neither changes what the main model computes.
 */
function settleOptionalParts(config: ModelConfig, found: Map<string, TensorInFile>) {
  const notes: string[] = [];
  const drop = (belongs: (name: string) => boolean) => {
    for (const name of found.keys()) if (belongs(name)) found.delete(name);
  };
  drop((name) => HARMLESS.test(name));
  if (config.family !== 'deepseek') return { config, notes };
  const module = (depth: number) => `model.layers.${config.numHiddenLayers + depth}.`;
  const stored = (depth: number) => [...found.keys()].some((name) => name.startsWith(module(depth)));
  if (config.numNextnPredictLayers > 0 && !stored(0)) {
    notes.push(
      `${module(0)}*: no MTP module is stored, though num_nextn_predict_layers = ${config.numNextnPredictLayers}`,
    );
    return { config: { ...config, numNextnPredictLayers: 0 }, notes };
  }
  if (config.numNextnPredictLayers > 0) return { config, notes };
  for (let depth = 0; found.has(`${module(depth)}eh_proj.weight`); depth++) {
    drop((name) => name.startsWith(module(depth)));
    notes.push(`${module(depth)}*: an MTP module, set aside because num_nextn_predict_layers = 0 in config.json`);
  }
  return { config, notes };
}

function checkTensor(expected: ExpectedWeight, found: ReadonlyMap<string, TensorInFile>, source: string): void {
  const { name, shape, dtypes, required } = expected;
  const tensor = found.get(name);
  if (!tensor) {
    if (required === 'always') {
      const stored = `[${shape.join(', ')}] (${dtypes.join(' or ')})`;
      throw new CheckpointError(
        `${source}: tensor "${name}" is missing, expected ${stored}. The file is incomplete or of another model than config.json`,
      );
    }
    if (required === 'with-fp8') checkScalePresence(name, null, found);
    return;
  }
  const refuse = (problem: string): never => {
    throw new CheckpointError(`${tensor.file}: tensor "${name}" ${problem}`);
  };
  if (!dtypes.includes(tensor.dtype)) {
    const unquantised = tensor.dtype === 'F8_E4M3' && dtypes.length > 1 && !dtypes.includes('F8_E4M3');
    refuse(
      `has dtype ${tensor.dtype}, expected ${dtypes.join(' or ')}${unquantised ? '. F8_E4M3 needs the quantization_config of the published config.json, and only projections may have it' : ''}`,
    );
  }
  if (tensor.shape.length !== shape.length || tensor.shape.some((size, axis) => size !== shape[axis])) {
    const reasons = shape
      .map((size, axis) => ({ size, axis }))
      .filter(({ size, axis }) => tensor.shape[axis] !== size)
      .map(({ size, axis }) => `${expected.axes[axis]} = ${size}`);
    const because = reasons.length > 0 ? `\n  (${reasons.join(', ')} in config.json)` : '';
    refuse(
      `has shape [${tensor.shape.join(', ')}], expected [${shape.join(', ')}]${because}. The file and the config are from different models`,
    );
  }
  if (required === 'with-fp8') checkScalePresence(name, tensor, found);
}

/** A scale is there exactly when its weight is FP8; the two may lie in different shards. */
function checkScalePresence(scaleName: string, scale: TensorInFile | null, found: ReadonlyMap<string, TensorInFile>) {
  const name = scaleName.slice(0, -SCALE_SUFFIX.length);
  const weight = found.get(name)!;
  if (weight.dtype === 'F8_E4M3' && !scale) {
    throw new CheckpointError(
      `${weight.file}: tensor "${name}" is F8_E4M3, but its block scales "${scaleName}" are missing`,
    );
  }
  if (weight.dtype !== 'F8_E4M3' && scale) {
    throw new CheckpointError(
      `${scale.file}: tensor "${scaleName}" scales "${name}", which is ${weight.dtype}, expected F8_E4M3`,
    );
  }
}

function checkNothingIsLeft(catalogue: readonly ExpectedWeight[], found: ReadonlyMap<string, TensorInFile>): void {
  const expected = new Set(catalogue.map(({ name }) => name));
  const extra = [...found.values()].filter(({ name }) => !expected.has(name));
  const [first] = extra;
  if (!first) return;
  const others = extra.length > 1 ? ` and ${extra.length - 1} more are` : ' is';
  throw new CheckpointError(
    `${first.file}: tensor "${first.name}"${others} not part of the model that config.json describes. The file and the config are from different models`,
  );
}

const SCALE_SUFFIX = '_scale_inv';

function scaleOf(name: string): string {
  return `${name}${SCALE_SUFFIX}`;
}

function storedTensor(tensor: TensorInFile, scale: TensorInFile | undefined): StoredTensor {
  const { name, shape, file } = tensor;
  const dtype = tensor.dtype as StoredTensor['dtype'];
  const bytes = aligned(tensor);
  if (!scale) return { name, dtype, shape, bytes };

  const nan = indexOfE4m3NaN(bytes);
  if (nan >= 0) {
    const at = `[${Math.floor(nan / shape[1]!)}, ${nan % shape[1]!}]`;
    throw new CheckpointError(`${file}: tensor "${name}" is NaN at ${at}, expected numbers. The file is damaged`);
  }
  const scaleBytes = aligned(scale);
  const scales = new Float32Array(scaleBytes.buffer, scaleBytes.byteOffset, scaleBytes.byteLength / 4);
  const bad = scales.findIndex((value) => !(value > 0 && value < Number.POSITIVE_INFINITY));
  if (bad >= 0) {
    const at = `[${Math.floor(bad / scale.shape[1]!)}, ${bad % scale.shape[1]!}]`;
    throw new CheckpointError(
      `${scale.file}: tensor "${scale.name}" is ${scales[bad]} at ${at}, expected a positive number. The file is damaged`,
    );
  }
  return { name, dtype, shape, bytes, scales };
}

function aligned({ dtype, bytes }: TensorInFile): Uint8Array {
  return bytes.byteOffset % DTYPE_BYTES[dtype] === 0 ? bytes : bytes.slice();
}
