/** `farthing price train`: device-hours and dollars of a training run, and what each pipeline schedule would make of it. */
import { Command, Option } from 'commander';
import type { Schedule } from '../economics/pipeline-schedule.ts';
import { examples, number, whole } from './arguments.ts';
import { readMachine } from './price-machine.ts';
import { readArchitecture } from './price-model.ts';
import { asCsv, asText } from './table.ts';

interface Options {
  readonly tokens: number;
  readonly sequence: number;
  readonly machine: string;
  readonly usdPerHour?: number;
  readonly devices: number;
  readonly utilisation: number;
  readonly count: 'causal' | 'noncausal';
  readonly against: 'bf16' | 'fp8';
  readonly schedule: Schedule;
  readonly stages: number;
  readonly microbatches: number;
  readonly json?: boolean;
  readonly csv?: boolean;
}

export function priceTrainCommand(): Command {
  return new Command('train')
    .description('Work out operations, device-hours and dollars of a training run.')
    .argument('<model>', 'a shipped model, a config.json or a checkpoint folder')
    .option('--tokens <n>', 'tokens of the run, 14.8e12 say', number(1, 1e16), 14.8e12)
    .option('--sequence <n>', 'tokens of a sequence', whole(1, 2 ** 28), 4096)
    .option('--machine <name>', 'a machine of the catalogue, or a JSON file', 'h800-sxm')
    .option('--usd-per-hour <n>', 'rent of one device, instead of the catalogue', number(0, 1e6))
    .option('--devices <n>', 'devices of the run', whole(1, 1e7), 2048)
    .option(
      '--utilisation <share>',
      'share of the peak that is useful work, over the whole run',
      number(1e-6, 1),
      0.3894,
    )
    .addOption(
      new Option('--count <convention>', 'score matrix in the utilisation')
        .choices(['causal', 'noncausal'])
        .default('causal'),
    )
    .addOption(
      new Option('--against <type>', 'peak that the utilisation is a share of')
        .choices(['bf16', 'fp8'])
        .default('bf16'),
    )
    .addOption(
      new Option('--schedule <name>', 'pipeline that reached it')
        .choices(['1f1b', 'zb1p', 'dualpipe', 'dualpipev'])
        .default('dualpipe'),
    )
    .option('--stages <n>', 'stages of the pipeline, an even number', whole(2, 4096), 16)
    .option('--microbatches <n>', 'microbatches of a step in one pipeline', whole(1, 1e6), 120)
    .option('--json', 'print as JSON')
    .option('--csv', 'print as CSV')
    .addHelpText(
      'after',
      examples(
        'farthing price train deepseek-v3',
        'farthing price train llama-3.1-405b --tokens 15e12 --machine h100-sxm --devices 16384 --utilisation 0.41 --schedule 1f1b',
      ),
    )
    .action(run);
}

async function run(name: string, options: Options): Promise<void> {
  const { trainingCost, underSchedules } = await import('../economics/training-cost.ts');
  const { tokens } = await import('../economics/quantity.ts');
  const { sequence, count, devices, utilisation, against } = options;
  const model = await readArchitecture(name);
  const machine = await readMachine(options.machine, options.usdPerHour);
  const peak = against === 'fp8' ? machine.fp8 : machine.bf16;
  if (peak === null) throw new Error(`--against is "fp8", expected "bf16": ${machine.name} has no FP8 units`);
  const cost = trainingCost(model.architecture, {
    phases: [{ name: 'training', tokens: tokens(options.tokens), sequenceLength: sequence }],
    utilisation,
    convention: count,
    peak,
    devices,
    price: machine.price,
  });
  const schedules = underSchedules(cost, options);
  if (options.json) return console.log(JSON.stringify({ model: model.id, machine: machine.id, ...cost, schedules }));
  if (options.csv)
    return console.log(asCsv(schedules.map((row) => ({ model: model.id, machine: machine.id, ...row }))));
  const flop = cost.phases[0]!.flop;
  const lines: [string, string][] = [
    ['model', model.name],
    ['operations', `${(flop / options.tokens / 1e9).toFixed(1)} GFLOP a token, ${flop.toExponential(3)} in all`],
    [
      'speed',
      `${((peak * utilisation) / 1e12).toFixed(0)} TFLOPS a device: ${(utilisation * 100).toFixed(2)} % of the ${against.toUpperCase()} peak of ${machine.name}`,
    ],
    ['device-hours', Math.round(cost.deviceHours).toLocaleString('en')],
    ['time', `${cost.days.toFixed(1)} days on ${devices.toLocaleString('en')} devices`],
    ['cost', `$${Math.round(cost.usd).toLocaleString('en')} at $${machine.price} a device-hour`],
  ];
  console.log(lines.map(([label, text]) => `${label.padEnd(14)}${text}`).join('\n'));
  const rows = schedules.map((row) => ({
    'pipeline schedule': row.schedule,
    'idle share': `${(row.bubbleShare * 100).toFixed(2)} %`,
    'device-hours': Math.round(row.deviceHours),
    dollars: Math.round(row.usd),
  }));
  console.log(`\n${asText(rows)}`);
  console.log(`The utilisation is taken as reached under ${options.schedule}; the others change the idle share alone.`);
}
