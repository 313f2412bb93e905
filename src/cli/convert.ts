/** `farthing convert`: a checkpoint in another precision or format. */
import path from 'node:path';
import { Command, Option } from 'commander';
import type { WeightPrecision } from '../model/convert.ts';
import type { GgufPrecision } from '../model/gguf-export.ts';
import { examples, modelOption } from './arguments.ts';
import { bytes } from './quantities.ts';

const FOLDERS: readonly WeightPrecision[] = ['fp8', 'bf16', 'nvfp4'];
const GGUF = {
  'gguf-f32': 'f32',
  'gguf-bf16': 'bf16',
  'gguf-q8_0': 'q8_0',
  'gguf-q4_0': 'q4_0',
} as const satisfies Record<string, GgufPrecision>;

interface Options {
  readonly model: string;
  readonly to: WeightPrecision | keyof typeof GGUF;
  readonly out: string;
}

export function convertCommand(): Command {
  return new Command('convert')
    .description('Write a checkpoint in another precision, or as a GGUF file for llama.cpp.')
    .addOption(modelOption())
    .addOption(
      new Option(
        '--to <type>',
        'fp8 (128 × 128 blocks), nvfp4 (4 bits) or bf16: a checkpoint folder; gguf-…: a file for llama.cpp',
      )
        .choices([...FOLDERS, ...Object.keys(GGUF)])
        .makeOptionMandatory(),
    )
    .requiredOption('--out <path>', 'folder or GGUF file to write')
    .addHelpText(
      'after',
      examples(
        'farthing convert --model ./mine --to fp8 --out ./mine-fp8',
        'farthing convert --model ./DeepSeek-V3 --to bf16 --out ./DeepSeek-V3-bf16',
        'farthing convert --model ./v2-lite --to gguf-q8_0 --out v2-lite.gguf',
      ),
    )
    .action(run);
}

async function run({ model, to, out }: Options): Promise<void> {
  if (to in GGUF) {
    const { exportGguf } = await import('../model/gguf-export.ts');
    await exportGguf(model, out, GGUF[to as keyof typeof GGUF]);
  } else {
    const { convertCheckpoint } = await import('../model/convert.ts');
    const { default: logUpdate } = await import('log-update');
    const onProgress = (written: number, total: number) => {
      if (process.stdout.columns) logUpdate(`${bytes(written)} of ${bytes(total)} written`);
    };
    await convertCheckpoint(model, out, { to: to as WeightPrecision, onProgress });
    logUpdate.clear();
  }
  console.log(path.relative('.', out) || out);
}
