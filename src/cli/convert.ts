/** `farthing convert`: a checkpoint in another format. */
import { Command, Option } from 'commander';
import type { GgufPrecision } from '../model/gguf-export.ts';
import { examples, modelOption } from './arguments.ts';

interface Options {
  readonly model: string;
  readonly to: GgufPrecision;
  readonly out: string;
}

export function convertCommand(): Command {
  return new Command('convert')
    .description('Write a checkpoint as a GGUF file for llama.cpp.')
    .addOption(modelOption())
    .addOption(new Option('--to <type>', 'type of the weights').choices(['bf16', 'q8_0']).default('q8_0'))
    .requiredOption('--out <file>', 'GGUF file to write')
    .addHelpText('after', examples('farthing convert --model ./v2-lite --to q8_0 --out v2-lite.gguf'))
    .action(async ({ model, to, out }: Options) => {
      const { exportGguf } = await import('../model/gguf-export.ts');
      await exportGguf(model, out, to);
      console.log(out);
    });
}
