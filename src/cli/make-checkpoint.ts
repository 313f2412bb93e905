/** `farthing make-checkpoint`: random weights of a published shape, to measure with. */
import { readFile } from 'node:fs/promises';
import { Command, Option } from 'commander';
import { examples, whole } from './arguments.ts';
import { bytes } from './quantities.ts';

interface Options {
  readonly like: string;
  readonly dtype: 'fp8' | 'bf16';
  readonly seed: number;
  readonly out: string;
  readonly json?: boolean;
}

export function makeCheckpointCommand(): Command {
  return new Command('make-checkpoint')
    .description('Write a checkpoint of random weights in the published format.')
    .requiredOption('--like <shape>', 'v2-lite, medium, small, or a config.json')
    .addOption(new Option('--dtype <type>', 'type of the linear weights').choices(['fp8', 'bf16']).default('fp8'))
    .option('--seed <n>', 'seed of the weights', whole(0, 2 ** 31), 1)
    .requiredOption('--out <dir>', 'folder to write')
    .option('--json', 'print as JSON')
    .addHelpText(
      'after',
      examples(
        'farthing make-checkpoint --like v2-lite --dtype fp8 --out ./v2-lite',
        'farthing make-checkpoint --like ./config.json --dtype bf16 --seed 7 --out ./random',
      ),
    )
    .action(run);
}

async function run({ like, dtype, seed, out, json }: Options): Promise<void> {
  const { SHAPES, writeRandomCheckpoint } = await import('../model/random-checkpoint.ts');
  const shape = Object.hasOwn(SHAPES, like)
    ? SHAPES[like as keyof typeof SHAPES]
    : parse(like, await readFile(like, 'utf8'));
  const begin = performance.now();
  await writeRandomCheckpoint(out, shape, { dtype, seed });
  const { openCheckpoint } = await import('../model/checkpoint.ts');
  const checkpoint = await openCheckpoint(out);
  const size = checkpoint.names.reduce((sum, name) => sum + checkpoint.header(name).byteLength, 0);
  const seconds = (performance.now() - begin) / 1000;
  const report = { out, tensors: checkpoint.names.length, bytes: size, seconds };
  console.log(
    json ? JSON.stringify(report) : `${out}: ${report.tensors} tensors, ${bytes(size)}, ${seconds.toFixed(1)} s`,
  );
}

function parse(file: string, text: string): object {
  const json: unknown = JSON.parse(text);
  if (typeof json !== 'object' || json === null) throw new Error(`${file}: expected a config.json`);
  return json;
}
