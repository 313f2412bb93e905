/** A safetensors file mapped into memory: only what is looked at is ever read from disk. */
import { basename } from 'node:path';
import { mapFile } from '../backend/native.ts';
import { parseSafetensors, type SafetensorsFile } from '../numerics/safetensors.ts';

/**
 * The file must not shrink while it is in use: replace checkpoints by renaming a new file over the old one.
 * @throws SafetensorsError naming file and tensor; Error when the file cannot be opened
 */
export function openSafetensors(path: string): SafetensorsFile {
  return parseSafetensors(mapFile(path), basename(path));
}
