/** `--model` of the price commands: the name of a shipped model, a config.json, or a folder that has one. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Architecture } from '../economics/architecture.ts';

export interface NamedArchitecture {
  readonly id: string;
  readonly name: string;
  readonly architecture: Architecture;
}

/** @throws Error naming the shipped models, when `model` is neither one of them nor a file */
export async function readArchitecture(model: string): Promise<NamedArchitecture> {
  const { MODELS, modelById } = await import('../economics/model-catalogue.ts');
  if (MODELS.some(({ id }) => id === model) || !/[./\\]/.test(model)) return modelById(model);
  const { parseArchitecture } = await import('../economics/architecture.ts');
  const file = model.endsWith('.json') ? model : path.join(model, 'config.json');
  return { id: model, name: model, architecture: parseArchitecture(await readJson(file), file) };
}

/** @throws Error naming the file, when it is not there or not JSON */
export async function readJson(file: string): Promise<unknown> {
  const text = await readFile(file, 'utf8');
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${file}: not JSON: ${(error as Error).message}`);
  }
}
