/** `farthing logits`: the logits after every token of a prompt, as a file, to compare with other implementations. */
import { readFile } from 'node:fs/promises';
import { Command } from 'commander';
import { z } from 'zod';
import type { CacheDType, Compute } from '../backend/graph.ts';
import { cacheDtypeOption, computeOption, examples, modelOption, threadsOption } from './arguments.ts';

interface Options {
  readonly model: string;
  readonly tokens: string;
  readonly out: string;
  readonly compute: Compute;
  readonly cacheDtype?: CacheDType;
  readonly threads?: number;
  readonly json?: boolean;
}

export function logitsCommand(): Command {
  return new Command('logits')
    .description('Write the logits after every token of a prompt to a safetensors file.')
    .addOption(modelOption())
    .requiredOption('--tokens <file>', 'JSON array of token ids')
    .requiredOption('--out <file>', 'safetensors file to write: tensor "logits", f32 [tokens, vocab]')
    .addOption(computeOption())
    .addOption(cacheDtypeOption())
    .addOption(threadsOption())
    .option('--json', 'print the shape as JSON')
    .addHelpText(
      'after',
      examples('farthing logits --model ./v2-lite --tokens ids.json --out logits.safetensors --compute f32'),
    )
    .action(run);
}

async function run({ model: folder, tokens, out, compute, cacheDtype, threads, json }: Options): Promise<void> {
  const ids = await readTokens(tokens);
  const { loadModel } = await import('../engine/language-model.ts');
  const { writeSafetensors } = await import('../numerics/safetensors-writer.ts');
  if (threads !== undefined) (await import('../backend/native.ts')).setThreads(threads);
  const model = await loadModel(folder, { compute, cacheDtype, sequences: 1 });
  const logits = await model.logits(ids);
  await model.close();
  const shape = [ids.length, model.config.vocabSize];
  const bytes = new Uint8Array(logits.buffer, logits.byteOffset, logits.byteLength);
  await writeSafetensors(out, [{ name: 'logits', dtype: 'F32', shape, bytes }]);
  const [count, vocab] = shape;
  console.log(json ? JSON.stringify({ out, tensor: 'logits', shape }) : `${out}: logits [${count}, ${vocab}]`);
}

async function readTokens(file: string): Promise<number[]> {
  const parsed = z
    .array(z.int().min(0))
    .min(1)
    .safeParse(parseJson(file, await readFile(file, 'utf8')));
  if (parsed.success) return parsed.data;
  const { path, message } = parsed.error.issues[0]!;
  throw new Error(
    `${file}: expected a JSON array of token ids, at least one (${['tokens', ...path].join('.')}: ${message})`,
  );
}

function parseJson(file: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`${file}: not JSON: ${(error as Error).message}`);
  }
}
