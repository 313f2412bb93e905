/** `farthing ablate`: trains small models that differ in one thing, and writes what each part is worth. */
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { Command, InvalidArgumentError, Option } from 'commander';
import type { AblationProgress, VariantResult } from '../train/ablation.ts';
import { COMPARISONS } from '../train/ablation-variants.ts';
import { examples, threadsOption, whole } from './arguments.ts';
import { duration } from './quantities.ts';

interface Options {
  readonly hidden: number;
  readonly steps: number;
  readonly seeds: number;
  readonly only: readonly string[];
  readonly runs: string;
  readonly out: string;
  readonly threads?: number;
  readonly json?: boolean;
}

export function ablateCommand(): Command {
  const names = COMPARISONS.map(({ name }) => name);
  return new Command('ablate')
    .description('Compare small models that differ in one thing: experts, balancing, attention, precision, MTP.')
    .option('--hidden <n>', 'hidden size of the models, a multiple of 64', hiddenSize, 128)
    .option('--steps <n>', 'steps of each model', whole(20, 10 ** 7), 1000)
    .option('--seeds <n>', 'seeds each model is trained with', whole(1, 100), 3)
    .addOption(new Option('--only <comparison...>', 'these comparisons alone').choices(names).default([], 'all'))
    .option('--runs <dir>', 'where the runs are kept; those that are there already go on', 'runs/ablation')
    .option('--out <file>', 'page to write, with a folder of pictures beside it', 'docs/ablation.md')
    .addOption(threadsOption())
    .option('--json', 'print the end of every run, and the results, as lines of JSON')
    .addHelpText(
      'after',
      examples(
        'farthing ablate',
        'farthing ablate --steps 200 --seeds 1 --only balancing attention --out ablation.md',
        'farthing serve --runs runs/ablation    # and compare the runs at http://127.0.0.1:8000/train',
      ),
    )
    .action(run);
}

async function run({ hidden, steps, seeds, only, runs, out, threads, json }: Options): Promise<void> {
  const [{ runAblation, comparisonsNamed }, { writeAblation }, native, { default: logUpdate }] = await Promise.all([
    import('../train/ablation.ts'),
    import('../train/ablation-report.ts'),
    import('../backend/native.ts'),
    import('log-update'),
  ]);
  if (threads !== undefined) native.setThreads(threads);
  const corpus = ['tinystories', 'storybooks'].map((name) =>
    fileURLToPath(new URL(`../../models/corpus/${name}.jsonl.gz`, import.meta.url)),
  );
  const settings = { comparisons: comparisonsNamed(only), hidden, steps, seeds, folder: path.resolve(runs), corpus };
  const training = runAblation(settings);
  let results: VariantResult[] = [];
  for (;;) {
    const { value, done } = await training.next();
    if (done) {
      results = value;
      break;
    }
    const ended = value.report.step === steps;
    if (json) {
      if (ended) console.log(JSON.stringify({ variant: value.variant, seed: value.seed, ...value.report }));
    } else if (ended) logUpdate.persist(describe(value, steps));
    else if (process.stdout.columns) logUpdate(describe(value, steps));
  }
  logUpdate.done();
  await writeAblation(out, settings, results, {
    command: [
      'farthing ablate',
      `--hidden ${hidden} --steps ${steps} --seeds ${seeds}`,
      ...(only.length > 0 ? ['--only', ...only] : []),
    ].join(' '),
    machine: `${os.cpus()[0]?.model ?? 'unknown processor'}, kernels for ${native.instructionSet}`,
    threads: native.threads(),
    date: new Date().toISOString().slice(0, 10),
  });
  if (json) console.log(JSON.stringify({ results: results.map(withoutSteps) }));
  else console.log(`${out}: a table and pictures for each comparison`);
}

function hiddenSize(text: string): number {
  const size = whole(64, 8192)(text);
  if (size % 64 !== 0) throw new InvalidArgumentError('Expected a multiple of 64.');
  return size;
}

const withoutSteps = ({ seeds, ...result }: VariantResult) => ({
  ...result,
  seeds: seeds.map(({ metrics: _, ...seed }) => seed),
});

function describe({ variant, seed, run, runs, report, secondsLeft }: AblationProgress, steps: number): string {
  const { step, loss, bitsPerByte, tokens, seconds } = report;
  return [
    `run ${run}/${runs}  ${variant}, seed ${seed}`,
    `step ${step}/${steps}`,
    `loss ${loss.toFixed(3)}`,
    ...(bitsPerByte === undefined ? [] : [`held out ${bitsPerByte.toFixed(4)} bits/byte`]),
    `${Math.round(tokens / seconds).toLocaleString('en')} tokens/s`,
    `${duration(secondsLeft)} left`,
  ].join('  ');
}
