/** Random models of a named shape in the temporary folder, kept from run to run, and the same weights for the peer. */
import { existsSync, mkdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { convertCheckpoint } from '../src/model/convert.ts';
import { exportGguf } from '../src/model/gguf-export.ts';
import { SHAPES, writeRandomCheckpoint } from '../src/model/random-checkpoint.ts';

export type Shape = keyof typeof SHAPES;
/** Our weights, and those of as many bits that the peer is measured with. */
export const PEER_TYPES = { fp8: 'q8_0', bf16: 'bf16', nvfp4: 'q4_0' } as const;
export type Weights = keyof typeof PEER_TYPES;

/** @throws Error naming the choices */
export function oneOf<Name extends string>(
  option: string,
  choices: Readonly<Record<Name, unknown>>,
  given: string,
): Name {
  if (!Object.hasOwn(choices, given)) {
    throw new Error(`--${option} ${given}: expected one of ${Object.keys(choices).join(', ')}`);
  }
  return given as Name;
}

const kept = path.join(os.tmpdir(), 'farthing-bench');

/** @returns the checkpoint's folder */
export async function randomModel(shape: Shape, weights: Weights): Promise<string> {
  const folder = path.join(kept, `${shape}-${weights}`);
  if (existsSync(path.join(folder, 'config.json'))) return folder;
  mkdirSync(kept, { recursive: true });
  if (weights === 'nvfp4') await convertCheckpoint(await randomModel(shape, 'bf16'), folder, { to: 'nvfp4' });
  else await writeRandomCheckpoint(folder, SHAPES[shape], { dtype: weights, seed: 1 });
  return folder;
}

/** @returns the GGUF file with the peer's type for these weights */
export async function peerModel(shape: Shape, weights: Weights): Promise<string> {
  const type = PEER_TYPES[weights];
  const file = path.join(kept, `${shape}-${type}.gguf`);
  const source = await randomModel(shape, weights === 'nvfp4' ? 'bf16' : weights);
  if (!existsSync(file)) await exportGguf(source, file, type);
  return file;
}

export const vocabularyOf = (shape: Shape): number => (SHAPES[shape] as { vocab_size: number }).vocab_size;
