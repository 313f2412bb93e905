/** Values of command-line options, read strictly: what does not fit is refused with what was expected. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { InvalidArgumentError, Option } from 'commander';
import { CACHE_DTYPES } from '../backend/graph.ts';

/** A whole number from `least` to `greatest`. */
export function whole(least: number, greatest: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^-?\d+$/.test(text) || value < least || value > greatest) {
      throw new InvalidArgumentError(`Expected a whole number from ${least} to ${greatest}.`);
    }
    return value;
  };
}

/** A number from `least` to `greatest`. */
export function number(least: number, greatest: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (text.trim() === '' || !(value >= least && value <= greatest)) {
      throw new InvalidArgumentError(`Expected a number from ${least} to ${greatest}.`);
    }
    return value;
  };
}

/** An amount of memory or disk: 2GiB, 500MB, or a number of bytes. */
export function size(text: string): number {
  const [, amount, prefix = '', binary] = /^(\d+(?:\.\d+)?)\s*(?:([KMGT])(i)?B?|B)?$/i.exec(text.trim()) ?? [];
  const value = Number(amount) * (binary ? 1024 : 1000) ** ' KMGT'.indexOf(prefix.toUpperCase() || ' ');
  if (!(value >= 1)) throw new InvalidArgumentError('Expected a size such as 2GiB or 500MB.');
  return Math.floor(value);
}

const builtInModel = fileURLToPath(new URL('../../models/farthing-tiny', import.meta.url));

/** `--model DIR`: a Hugging Face checkpoint folder; the model that comes with this package unless given. */
export function modelOption(): Option {
  return new Option('-m, --model <dir>', 'checkpoint folder (config.json, *.safetensors, tokenizer.json)')
    .default(builtInModel, 'the built-in model')
    .argParser((text) => path.resolve(text));
}

export function computeOption(): Option {
  return new Option('--compute <mode>', 'fast: BF16 operands, FP32 sums; f32: FP32 activations, the reference')
    .choices(['fast', 'f32'])
    .default('fast');
}

export function cacheDtypeOption(): Option {
  return new Option(
    '--cache-dtype <type>',
    'type of the cache; fp8 (MLA alone) takes little more than half of bf16 (default: bf16, with --compute f32 f32)',
  ).choices(CACHE_DTYPES);
}

export function threadsOption(): Option {
  return new Option('--threads <n>', 'threads that compute (default: one a core)').argParser(whole(1, 1024));
}

export function packedOption(): Option {
  return new Option(
    '--packed <file>',
    'keep packed weights in this file (written at first) and read them when needed: for models larger than memory',
  ).argParser((text) => path.resolve(text));
}

/** One line on the terminal that says how far writing the packed file is. */
export function showPacking(): (done: number, total: number) => void {
  return (done, total) => {
    if (!process.stderr.isTTY) return;
    process.stderr.write(`\rpacked ${done} of ${total} weights${done === total ? '\n' : ''}`);
  };
}

/** The examples under a command's help. */
export function examples(...lines: string[]): string {
  return `\nExamples:\n${lines.map((line) => `  $ ${line}`).join('\n')}`;
}
