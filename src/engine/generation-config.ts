/** `generation_config.json` of a checkpoint folder: how its makers recommend to sample, and where answers end. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { z } from 'zod';
import { FormatError } from '../numerics/format-error.ts';

export interface GenerationConfig {
  readonly eosTokenIds: readonly number[];
  readonly sampling: { readonly temperature: number; readonly topP: number; readonly topK: number };
}

class GenerationConfigError extends FormatError {
  override name = 'GenerationConfigError';
}

const fields = z.object({
  eos_token_id: z.union([z.int(), z.array(z.int())], 'expected a token id or an array of them').nullish(),
  do_sample: z.boolean('expected true or false').nullish(),
  temperature: z.number('expected a number').min(0, 'expected at least 0').nullish(),
  top_p: z.number('expected a number').min(0, 'expected 0 to 1').max(1, 'expected 0 to 1').nullish(),
  top_k: z.int('expected a whole number').min(0, 'expected at least 0').nullish(),
});

/**
 * What the folder's file says, or temperature 1 without limits where it says nothing or is missing.
 * @throws GenerationConfigError naming the file and the field
 */
export async function readGenerationConfig(folder: string): Promise<GenerationConfig> {
  const file = path.join(folder, 'generation_config.json');
  const text = await readFile(file, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return '{}';
    throw error;
  });
  const parsed = fields.safeParse(parseJson(file, text));
  if (!parsed.success) {
    const { path: field, message } = parsed.error.issues[0]!;
    throw new GenerationConfigError(`${file}: "${field.join('.')}": ${message}`);
  }
  const { eos_token_id, do_sample, temperature, top_p, top_k } = parsed.data;
  return {
    eosTokenIds: typeof eos_token_id === 'number' ? [eos_token_id] : (eos_token_id ?? []),
    sampling: { temperature: do_sample === false ? 0 : (temperature ?? 1), topP: top_p ?? 1, topK: top_k ?? 0 },
  };
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new GenerationConfigError(`${file}: not JSON: ${(cause as Error).message}`, { cause });
  }
}
