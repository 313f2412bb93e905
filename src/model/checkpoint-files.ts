/**
 * The files of a checkpoint folder: one model.safetensors, or shards that an index lists. The index and the shards
 * must agree tensor for tensor, and no shard name may lead out of the folder.
 */
import { access, readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { duplicateKey } from '../numerics/duplicate-key.ts';
import { FormatError, shown } from '../numerics/format-error.ts';
import type { SafetensorsTensor } from '../numerics/safetensors.ts';
import { openSafetensors } from './mapped-safetensors.ts';

/** The parts of a checkpoint folder do not fit together, or one is missing. */
export class CheckpointError extends FormatError {
  override name = 'CheckpointError';
}

/** A tensor and the file that holds it. */
export interface TensorInFile {
  readonly file: string;
  readonly tensor: SafetensorsTensor;
}

const CONFIG = 'config.json';
const SINGLE = 'model.safetensors';
const INDEX = 'model.safetensors.index.json';
const MAX_JSON_BYTES = 2 ** 27;

/** @returns the content of the folder's config.json */
export async function readConfigJson(folder: string): Promise<unknown> {
  if (!(await exists(folder))) throw new CheckpointError(`${folder}: no such folder`);
  return await readJson(folder, CONFIG);
}

/** All tensors of the folder by name, and the one file or the shards' index. @throws CheckpointError, SafetensorsError */
export async function tensorsOfFolder(folder: string): Promise<{ tensors: Map<string, TensorInFile>; source: string }> {
  const single = await exists(join(folder, SINGLE));
  const index = await exists(join(folder, INDEX));
  if (single && index) {
    throw new CheckpointError(`${folder}: has both ${SINGLE} and ${INDEX}, expected one. Remove the one that is stale`);
  }
  if (index) return { tensors: await tensorsOfShards(folder), source: INDEX };
  if (!single) {
    throw new CheckpointError(`${folder}: has neither ${SINGLE} nor ${INDEX}. Weights are read from safetensors files`);
  }
  return { tensors: new Map(await tensorsOfFile(folder, SINGLE)), source: SINGLE };
}

async function tensorsOfShards(folder: string): Promise<Map<string, TensorInFile>> {
  const shardOf = weightMap(await readJson(folder, INDEX));
  const tensors = new Map<string, TensorInFile>();
  const shards = [...new Set(shardOf.values())].sort();
  for (const shard of shards) {
    if (!(await exists(join(folder, shard)))) {
      throw new CheckpointError(`${shard}: no such file in ${folder}, though ${INDEX} lists it`);
    }
  }
  for (const shard of shards) {
    for (const [name, tensor] of await tensorsOfFile(folder, shard)) {
      const listed = shardOf.get(name);
      if (listed !== shard) {
        const found = listed === undefined ? 'does not list it' : `has it in ${listed}`;
        throw new CheckpointError(`${shard}: tensor "${name}" is here, but ${INDEX} ${found}`);
      }
      tensors.set(name, tensor);
    }
  }
  for (const [name, shard] of shardOf) {
    if (!tensors.has(name))
      throw new CheckpointError(`${shard}: tensor "${name}" is missing, though ${INDEX} has it here`);
  }
  return tensors;
}

/** Tensor name → shard file name, from an index. */
function weightMap(index: unknown): Map<string, string> {
  const refuse = (problem: string): never => {
    throw new CheckpointError(`${INDEX}: ${problem}`);
  };
  const map = isObject(index) ? index.weight_map : undefined;
  if (!isObject(map)) return refuse(`"weight_map" is ${shown(map)}, expected an object of tensor names and file names`);
  if (Object.keys(map).length === 0) refuse('"weight_map" is empty, expected the tensors of the model');
  const shardOf = new Map<string, string>();
  for (const [name, shard] of Object.entries(map)) {
    if (typeof shard !== 'string' || !/^[\w-][\w.-]*\.safetensors$/.test(shard)) {
      return refuse(`tensor "${name}" is in ${shown(shard)}, expected the name of a .safetensors file in this folder`);
    }
    shardOf.set(name, shard);
  }
  return shardOf;
}

async function tensorsOfFile(folder: string, file: string): Promise<[string, TensorInFile][]> {
  const path = join(folder, file);
  if ((await fileBytes(path, file)) === 0) {
    throw new CheckpointError(`${file}: is empty, expected a safetensors file`);
  }
  return [...openSafetensors(path).tensors].map(([name, tensor]) => [name, { file, tensor }]);
}

async function readJson(folder: string, file: string): Promise<unknown> {
  const path = join(folder, file);
  if (!(await exists(path))) {
    throw new CheckpointError(
      `${file}: no such file in ${folder}. A checkpoint folder has ${CONFIG} and safetensors files`,
    );
  }
  const size = await fileBytes(path, file);
  if (size > MAX_JSON_BYTES)
    throw new CheckpointError(`${file}: has ${size} bytes, expected at most ${MAX_JSON_BYTES}`);
  const text = await readFile(path, 'utf8');
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(`${file}: not JSON: ${(error as Error).message}`);
  }
  const repeated = duplicateKey(text);
  if (repeated !== null) throw new CheckpointError(`${file}: names "${repeated}" twice in one object`);
  return json;
}

async function fileBytes(path: string, file: string): Promise<number> {
  const status = await stat(path);
  if (!status.isFile()) throw new CheckpointError(`${file}: is a folder or a device, expected a file`);
  return status.size;
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
