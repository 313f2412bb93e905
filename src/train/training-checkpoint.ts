/**
 * Checkpoints of a run: a Hugging Face folder that can be loaded as it is, plus the FP32 state to go on from. A
 * checkpoint is made aside and takes its name in one step, so what has a name is whole.
 */
import { copyFile, mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { type ModelConfig, toConfigJson } from '../model/config.ts';
import { float32ToBf16 } from '../numerics/bf16.ts';
import { replaceFile } from '../numerics/replace-file.ts';
import { parseSafetensors, SafetensorsError } from '../numerics/safetensors.ts';
import { type TensorToWrite, writeSafetensors } from '../numerics/safetensors-writer.ts';
import type { Parameters } from './parameters.ts';

const STATE_FILE = 'training-state.safetensors';
const NAME = /^step-(\d{8})$/;
const FLAT = ['master', 'firstMoment', 'secondMoment'] as const;
const bytesOf = (array: Float32Array | Uint16Array) => new Uint8Array(array.buffer, array.byteOffset, array.byteLength);

/** Files beside the weights that make a folder usable: the tokenizer. */
export type Companions = readonly string[];

/** Writes a model folder: config.json, BF16 weights (router biases FP32) and copies of `companions`. */
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
  for (const companion of companions) await copyFile(companion, path.join(folder, path.basename(companion)));
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
  const name = `step-${String(step).padStart(8, '0')}`;
  const aside = path.join(folder, `.${name}.part`);
  await rm(aside, { recursive: true, force: true });
  await writeModel(aside, config, parameters, companions);
  const state: TensorToWrite[] = FLAT.map((key) => ({
    name: key,
    dtype: 'F32',
    shape: [parameters.count],
    bytes: bytesOf(parameters[key]),
  }));
  for (const [biasName, bias] of parameters.routerBiases) {
    state.push({ name: biasName, dtype: 'F32', shape: [bias.length], bytes: bytesOf(bias) });
  }
  await writeSafetensors(path.join(aside, STATE_FILE), state, { step: String(step) });
  await flush(aside);
  const final = path.join(folder, name);
  await rm(final, { recursive: true, force: true });
  await rename(aside, final);
  await flush(folder);
  const older = (await checkpointsIn(folder)).slice(0, -keep);
  for (const old of older) await rm(path.join(folder, old), { recursive: true });
  return final;
}

/** Restores the newest checkpoint into `parameters`. @returns its step, or 0 where there is none */
export async function resumeCheckpoint(folder: string, parameters: Parameters): Promise<number> {
  const newest = (await checkpointsIn(folder)).at(-1);
  if (!newest) return 0;
  const file = path.join(folder, newest, STATE_FILE);
  const content = await readFile(file);
  const { tensors, metadata } = parseSafetensors(
    content.buffer.slice(content.byteOffset, content.byteOffset + content.byteLength) as ArrayBuffer,
    file,
  );
  const restore = (name: string, into: Float32Array) => {
    const bytes = tensors.get(name)?.bytes;
    if (bytes?.byteLength !== into.byteLength) {
      throw new SafetensorsError(
        `${file}: "${name}" has ${bytes?.byteLength ?? 'no'} bytes, expected ${into.byteLength}. The checkpoint is of another model`,
      );
    }
    bytesOf(into).set(bytes);
  };
  for (const key of FLAT) restore(key, parameters[key]);
  for (const [name, bias] of parameters.routerBiases) restore(name, bias);
  return Number(metadata.step);
}

async function checkpointsIn(folder: string): Promise<string[]> {
  const names = await readdir(folder).catch(() => []);
  return names.filter((name) => NAME.test(name)).sort();
}

async function flush(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  await handle.sync().finally(() => handle.close());
}
