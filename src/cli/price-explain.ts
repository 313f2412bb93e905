/** `farthing price explain`: from a dense multi-head BF16 model to the model as served, technique by technique. */
import { Command, Option } from 'commander';
import { examples, number } from './arguments.ts';
import { readMachine } from './price-machine.ts';
import { readArchitecture } from './price-model.ts';
import { asCsv, asText, type Row } from './table.ts';

interface Options {
  readonly machine: string;
  readonly usdPerHour?: number;
  readonly order?: string;
  readonly prompt: number;
  readonly output: number;
  readonly hitRate: number;
  readonly mtp: number;
  readonly tpot: number;
  readonly ttft: number;
  readonly claims?: boolean;
  readonly json?: boolean;
  readonly csv?: boolean;
}

export function priceExplainCommand(): Command {
  return new Command('explain')
    .description('Show what each technique saves, and what popular claims get right and wrong.')
    .argument('[model]', 'a model with experts and latent attention', 'deepseek-v3')
    .addOption(
      new Option('--order <list>', 'techniques in the order they are added').default(
        undefined,
        'experts,mla,fp8,wide,mtp,caching',
      ),
    )
    .option('--machine <name>', 'a machine of the catalogue, or a JSON file', 'h800-sxm')
    .option('--usd-per-hour <n>', 'rent of one device, instead of the catalogue', number(0, 1e6))
    .option('--prompt <n>', 'tokens of a prompt', number(1, 1e8), 4400)
    .option('--output <n>', 'tokens of an answer', number(1, 1e8), 1200)
    .option('--hit-rate <share>', 'share of prompt tokens that prefix caching finds', number(0, 0.999), 0.5625)
    .option('--mtp <share>', 'share of drafted tokens that is kept', number(0, 1), 0.85)
    .option('--tpot <ms>', 'longest mean time between two tokens of an answer', number(0.01, 1e7), 50)
    .option('--ttft <s>', 'longest mean time to the first token', number(1e-5, 1e5), 5)
    .option('--claims', 'print what popular claims get right and wrong instead')
    .option('--json', 'print as JSON')
    .option('--csv', 'print as CSV')
    .addHelpText(
      'after',
      examples(
        'farthing price explain',
        'farthing price explain --order caching,mtp,wide,fp8,mla,experts',
        'farthing price explain --claims',
      ),
    )
    .action(run);
}

async function run(name: string, options: Options): Promise<void> {
  if (options.claims) return printClaims(options);
  const { explain, TECHNIQUE_NAMES } = await import('../economics/explanation.ts');
  const { seconds } = await import('../economics/quantity.ts');
  const { architecture, name: title } = await readArchitecture(name);
  const machine = await readMachine(options.machine, options.usdPerHour);
  const workload = {
    promptTokens: options.prompt,
    outputTokens: options.output,
    hitShare: options.hitRate,
    tpotTarget: seconds(options.tpot / 1000),
    ttftTarget: seconds(options.ttft),
    load: 1,
  };
  const settings = { machine, workload, acceptance: options.mtp };
  const explanation = explain(
    architecture,
    settings,
    options.order?.split(',').map((part) => part.trim()),
  );
  const { start, steps, shares } = explanation;
  if (options.json) return console.log(JSON.stringify({ workload, ...explanation }));
  if (options.csv) return console.log(asCsv(steps.map((step): Row => ({ ...step }))));
  const dollars = (value: number) => `$${value.toFixed(value < 1 ? 4 : 2)}`;
  const factor = (value: number) => `${value.toFixed(2)} ×`;
  const waterfall: Row[] = [
    {
      step: 'dense, multi-head, BF16, as many parameters',
      '$/M input': dollars(start.input),
      cheaper: '',
      '$/M output': dollars(start.output),
      'cheaper ': '',
    },
    ...steps.map((step) => ({
      step: `+ ${TECHNIQUE_NAMES[step.technique]}`,
      '$/M input': dollars(step.input),
      cheaper: factor(step.inputFactor),
      '$/M output': dollars(step.output),
      'cheaper ': factor(step.outputFactor),
    })),
  ];
  const order = shares.map((share) => ({
    'whatever the order': TECHNIQUE_NAMES[share.technique],
    'input, mean factor': factor(share.inputFactor),
    'of the saving': `${(share.inputShare * 100).toFixed(1)} %`,
    'output, mean factor': factor(share.outputFactor),
    'of the saving ': `${(share.outputShare * 100).toFixed(1)} %`,
  }));
  const head = `${title} on ${machine.name} at $${machine.price} an hour: ${options.prompt} tokens in, ${options.output} out, ${(options.hitRate * 100).toFixed(1)} % hits, ${options.tpot} ms a token, each step on the number of devices that serves it cheapest`;
  console.log([head, '', asText(waterfall), '', asText(order)].join('\n'));
}

async function printClaims({ json }: Options): Promise<void> {
  const { popularClaims } = await import('../economics/popular-claims.ts');
  const claims = popularClaims();
  if (json) return console.log(JSON.stringify(claims));
  const blocks = claims.map(({ claim, verdict, figures }) =>
    [`“${claim}”`, `  ${verdict}`, ...figures.map(({ value, formula }) => `  ${value.padStart(9)}  ${formula}`)].join(
      '\n',
    ),
  );
  console.log(blocks.join('\n\n'));
}
