/**
 * Checkpoints of a run: a Hugging Face folder that can be loaded as it is, plus the state to go on from. A
 * checkpoint is made aside and takes its name in one step, so what has a name is whole.
 */
import { copyFile, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { type ModelConfig, parseConfig, toConfigJson } from '../model/config.ts';
import { openSafetensors } from '../model/mapped-safetensors.ts';
import { float32ToBf16 } from '../numerics/bf16.ts';
import { FormatError, shown } from '../numerics/format-error.ts';
import { replaceFile } from '../numerics/replace-file.ts';
import { type TensorToWrite, writeSafetensors } from '../numerics/safetensors-writer.ts';
import type { Parameters } from './parameters.ts';

const STATE_FILE = 'training-state.safetensors';
const NAME = /^step-(\d{8})$/;
/** What is being written, or removed: a kill leaves it behind, and nobody takes it for a checkpoint. */
const ASIDE = /^\.step-\d{8}\.part$/;
const FLAT = { master: 'F32', firstMoment: 'BF16', secondMoment: 'BF16' } as const;
const flatKeys = Object.keys(FLAT) as (keyof typeof FLAT)[];
const bytesOf = (array: Float32Array | Uint16Array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Files beside the weights that make a folder usable: the tokenizer. */
export type Companions = readonly string[];

class TrainingCheckpointError extends FormatError {
  override name = 'TrainingCheckpointError';
}

/** Writes a model folder: config.json, weights in BF16 (router biases in FP32) and copies of `companions`. */
export async function writeModel(
  folder: string,
  config: ModelConfig,
  parameters: Parameters,
  companions: Companions,
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const tensors: TensorToWrite[] = parameters.list.map(({ name, shape, at, count }) => ({
    name,
    dtype: 'BF16',
    shape,
    bytes: () => bytesOf(float32ToBf16(parameters.master.subarray(at, at + count))),
  }));
  for (const [name, bias] of parameters.routerBiases)
    tensors.push({ name, dtype: 'F32', shape: [bias.length], bytes: bytesOf(bias) });
  await writeSafetensors(path.join(folder, 'model.safetensors'), tensors, { format: 'pt' });
  const json = `${JSON.stringify(toConfigJson(config), null, 2)}\n`;
  await replaceFile(path.join(folder, 'config.json'), (file) => file.writeFile(json));
  for (const companion of companions) {
    const copy = path.join(folder, path.basename(companion));
    await copyFile(companion, copy);
    await flush(copy);
  }
}

/** Writes checkpoint `step` under `folder` and removes all but the newest `keep`. */
export async function saveCheckpoint(
  folder: string,
  step: number,
  config: ModelConfig,
  parameters: Parameters,
  companions: Companions,
  keep = 2,
): Promise<string> {
  const name = nameOf(step);
  const aside = path.join(folder, `.${name}.part`);
  await rm(aside, { recursive: true, force: true });
  await writeModel(aside, config, parameters, companions);
  const state: TensorToWrite[] = flatKeys.map((key) => ({
    name: key,
    dtype: FLAT[key],
    shape: [parameters.count],
    bytes: bytesOf(parameters[key]),
  }));
  for (const [biasName, bias] of parameters.routerBiases) {
    state.push({ name: biasName, dtype: 'F32', shape: [bias.length], bytes: bytesOf(bias) });
  }
  await writeSafetensors(path.join(aside, STATE_FILE), state, { step: String(step) });
  await flush(aside);
  const final = path.join(folder, name);
  await rename(aside, final);
  await flush(folder);
  for (const old of (await checkpointsIn(folder)).slice(0, -keep)) await removeCheckpoint(folder, old);
  return final;
}

/**
 * Restores the newest checkpoint into `parameters`, and clears away what a kill left half-written.
 * @returns its step, or 0 where there is none
 * @throws TrainingCheckpointError, SafetensorsError naming the checkpoint, what was expected and found; `parameters`
 *   are then as they were
 */
export async function resumeCheckpoint(folder: string, config: ModelConfig, parameters: Parameters): Promise<number> {
  const names = await readdir(folder).catch(() => []);
  for (const name of names.filter((each) => ASIDE.test(each))) await rm(path.join(folder, name), { recursive: true });
  const newest = (await checkpointsIn(folder)).at(-1);
  if (!newest) return 0;
  await expectConfig(path.join(folder, newest, 'config.json'), config);
  const file = path.join(folder, newest, STATE_FILE);
  const { tensors, metadata } = openSafetensors(file, file);
  const refuse = (problem: string): never => {
    throw new TrainingCheckpointError(`${file}: ${problem}`);
  };
  const step = Number(metadata.step);
  if (nameOf(step) !== newest) refuse(`it is of step ${shown(metadata.step)}, expected that of its folder`);
  const biases = [...parameters.routerBiases].map(([name, bias]) => [name, bias, 'F32'] as const);
  const restored = [...flatKeys.map((key) => [key, parameters[key], FLAT[key]] as const), ...biases];
  const contents = restored.map(([name, into, dtype]) => {
    const tensor = tensors.get(name) ?? refuse(`tensor "${name}" is missing`);
    if (tensor.dtype !== dtype || tensor.bytes.byteLength !== into.byteLength) {
      refuse(`tensor "${name}" is ${tensor.dtype} [${tensor.shape.join(', ')}], expected ${dtype} [${into.length}]`);
    }
    return [into, tensor.bytes] as const;
  });
  for (const [into, bytes] of contents) bytesOf(into).set(bytes);
  return step;
}

/** A checkpoint of another architecture is no state to go on from, even if it is as large. */
async function expectConfig(file: string, config: ModelConfig): Promise<void> {
  const found = toConfigJson(parseConfig(parseJson(file, await readFile(file, 'utf8')), file));
  const expected = toConfigJson(config);
  for (const key of new Set([...Object.keys(expected), ...Object.keys(found)])) {
    if (JSON.stringify(found[key]) === JSON.stringify(expected[key])) continue;
    throw new TrainingCheckpointError(
      `${file}: "${key}" is ${shown(found[key])}, expected ${shown(expected[key])}. The checkpoint is of another model`,
    );
  }
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new TrainingCheckpointError(`${file}: no JSON: ${(error as Error).message}`);
  }
}

/** Takes the name away first: a kill in the middle leaves no half checkpoint under it. */
async function removeCheckpoint(folder: string, name: string): Promise<void> {
  const aside = path.join(folder, `.${name}.part`);
  await rename(path.join(folder, name), aside);
  await rm(aside, { recursive: true });
}

const nameOf = (step: number) => `step-${String(step).padStart(8, '0')}`;

async function checkpointsIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => NAME.test(name)).sort();
}

/** Puts a file, or the names in a folder, on disk. */
async function flush(fileOrFolder: string): Promise<void> {
  const handle = await open(fileOrFolder, 'r');
  await handle.sync().finally(() => handle.close());
}
