/** `farthing price serve`: what serving a workload takes and costs on a machine, and what binds. */
import { Command, Option } from 'commander';
import type { Machine } from '../economics/machine.ts';
import type { Serving, ServingPlan, Workload } from '../economics/serving.ts';
import { examples, number, whole } from './arguments.ts';
import { readMachine } from './price-machine.ts';
import { type NamedArchitecture, readArchitecture } from './price-model.ts';
import { asCsv, asText, type Row } from './table.ts';

export interface ServeOptions {
  readonly machine: string;
  readonly usdPerHour?: number;
  readonly prompt: number;
  readonly output: number;
  readonly hitRate: number;
  readonly context?: number;
  readonly tpot: number;
  readonly ttft: number;
  readonly load: number;
  readonly precision: 'fp8' | 'bf16';
  readonly cache: 'bf16' | 'fp8';
  readonly mtp?: number;
  readonly prefillDevices?: number;
  readonly decodeDevices?: number;
  readonly tensorParallel?: number;
  readonly imbalance?: number;
  readonly overlap: boolean;
  readonly list?: readonly [number, number, number];
  readonly json?: boolean;
  readonly csv?: boolean;
}

export function priceServeCommand(): Command {
  return withServeOptions(
    new Command('serve')
      .description('Predict throughput, batch and cost of serving a workload, and what binds.')
      .argument('<model>', 'a shipped model, a config.json or a checkpoint folder'),
  )
    .option('--list <hit,miss,output>', 'list price in dollars a million tokens, for the margin', prices)
    .addHelpText(
      'after',
      examples(
        'farthing price serve deepseek-v3 --machine h800-sxm --prompt 4400 --output 1200 --hit-rate 0.56',
        'farthing price serve deepseek-r1 --list 0.14,0.55,2.19',
        'farthing price serve llama-3.1-70b --machine h100-sxm --precision bf16 --tpot 30',
        'farthing price serve deepseek-v3 --machine ./my-machine.json --json',
        'farthing price serve deepseek-v2-lite --machine local',
      ),
    )
    .action(run);
}

/** The options that describe machine, layout and workload. */
export function withServeOptions(command: Command): Command {
  return command
    .option(
      '--machine <name>',
      'a machine of the catalogue (an unknown name lists them), a JSON file, or local',
      'h800-sxm',
    )
    .option('--usd-per-hour <n>', 'rent of one device, instead of the catalogue', number(0, 1e6))
    .option('--prompt <n>', 'tokens of a prompt', number(1, 1e8), 4000)
    .option('--output <n>', 'tokens of an answer', number(1, 1e8), 1000)
    .option('--hit-rate <share>', 'share of prompt tokens found in the prefix cache', number(0, 0.999), 0)
    .option(
      '--context <n>',
      'tokens an output token looks back on; prompt and half the output unless given',
      number(1, 1e8),
    )
    .option('--tpot <ms>', 'longest mean time between two tokens of an answer', number(0.01, 1e7), 50)
    .option('--ttft <s>', 'longest mean time to the first token', number(1e-5, 1e5), 5)
    .option('--load <share>', 'mean share of the capacity that is asked for', number(0.001, 1), 1)
    .addOption(new Option('--precision <type>', 'weights and products').choices(['fp8', 'bf16']).default('fp8'))
    .addOption(new Option('--cache <type>', 'cached values').choices(['bf16', 'fp8']).default('bf16'))
    .option('--mtp <share>', 'draft with the MTP module, of which this share is kept', number(0, 1))
    .option('--prefill-devices <n>', 'devices that serve prompts together; suggested unless given', whole(1, 4096))
    .option('--decode-devices <n>', 'devices that write together; suggested unless given', whole(1, 4096))
    .option('--tensor-parallel <n>', 'devices that attention and dense layers are split over', whole(1, 4096))
    .option('--imbalance <n>', 'load of the busiest device over the mean load', number(1, 100))
    .option('--no-overlap', 'one batch instead of two microbatches that hide communication')
    .option('--json', 'print as JSON')
    .option('--csv', 'print as CSV');
}

function prices(text: string): readonly [number, number, number] {
  const [hit, miss, output] = text.split(',').map(number(0, 1e6));
  if (hit === undefined || miss === undefined || output === undefined) {
    throw new Error(`--list is "${text}", expected three prices: cache hit, cache miss, output`);
  }
  return [hit, miss, output];
}

/** The plan that the options ask for; what they leave open is suggested. */
export async function planOf(
  model: NamedArchitecture,
  machine: Machine,
  workload: Workload,
  options: ServeOptions,
): Promise<ServingPlan> {
  const { suggestPlan, USUAL_CHOICE } = await import('../economics/suggested-plan.ts');
  const { precision, cache, mtp, imbalance, overlap, tensorParallel } = options;
  const plan = suggestPlan(model.architecture, machine, workload, {
    ...USUAL_CHOICE,
    precision,
    cache,
    mtpAcceptance: mtp ?? null,
    imbalance: imbalance ?? USUAL_CHOICE.imbalance,
  });
  const asked = (unit: ServingPlan['decode'], devices: number | undefined) => ({
    ...unit,
    devices: devices ?? unit.devices,
    tensorParallel: tensorParallel ?? (devices === undefined ? unit.tensorParallel : unit.expertParallel ? 1 : devices),
    overlap: unit.overlap && overlap,
  });
  return {
    ...plan,
    prefill: asked(plan.prefill, options.prefillDevices),
    decode: asked(plan.decode, options.decodeDevices),
  };
}

export async function workloadOf(options: ServeOptions): Promise<Workload> {
  const { seconds } = await import('../economics/quantity.ts');
  return {
    promptTokens: options.prompt,
    outputTokens: options.output,
    hitShare: options.hitRate,
    ...(options.context === undefined ? {} : { context: options.context }),
    tpotTarget: seconds(options.tpot / 1000),
    ttftTarget: seconds(options.ttft),
    load: options.load,
  };
}

async function run(name: string, options: ServeOptions): Promise<void> {
  if (options.machine === 'local') return (await import('./price-local.ts')).priceLocal(name, options);
  const { margin, serve } = await import('../economics/serving.ts');
  const { usdPerMillion } = await import('../economics/quantity.ts');
  const model = await readArchitecture(name);
  const machine = await readMachine(options.machine, options.usdPerHour);
  const workload = await workloadOf(options);
  const plan = await planOf(model, machine, workload, options);
  const serving = serve(model.architecture, plan, workload);
  const [hit, miss, output] = (options.list ?? []).map(usdPerMillion);
  const sold =
    hit === undefined || miss === undefined || output === undefined
      ? null
      : margin(serving, workload, { hit, miss, output });
  if (options.json) {
    console.log(JSON.stringify({ model: model.id, machine: machine.id, plan, workload, serving, margin: sold }));
  } else if (options.csv) console.log(asCsv([summary(model.id, machine, serving)]));
  else console.log(describe(model, plan, workload, serving, sold));
}

export function summary(model: string, machine: Machine, { prefill, decode, usd }: Serving): Row {
  return {
    model,
    machine: machine.id,
    'input tokens/s a node': prefill.inputPerNode,
    'output tokens/s a node': decode.perNode,
    'batch a device': decode.batch,
    '$/M miss': usd.miss,
    '$/M hit': usd.hit,
    '$/M output': usd.output,
  };
}

const BINDS = {
  compute: 'arithmetic',
  memory: 'memory bandwidth',
  link: 'the links between devices',
  launch: 'starting kernels',
  storage: 'reading cached prefixes from storage',
} as const;

const LIMITS = { memory: 'memory for the cache', latency: 'the time between tokens', demand: 'demand' } as const;

function shownTime(value: number): string {
  return value >= 1 ? `${value.toFixed(2)} s` : `${(value * 1000).toFixed(value < 0.01 ? 2 : 1)} ms`;
}

function describe(
  model: NamedArchitecture,
  plan: ServingPlan,
  workload: Workload,
  { prefill, decode, usd, decodeDevicesPerPrefill }: Serving,
  sold: { revenue: number; cost: number; ofRevenue: number; ofCost: number } | null,
): string {
  const { machine } = plan.decode;
  const unit = ({ devices, tensorParallel, expertParallel }: ServingPlan['decode']) =>
    [
      `${devices} × ${machine.name}`,
      ...(expertParallel && devices > 1 ? ['experts spread'] : []),
      ...(tensorParallel > 1 ? [`tensors split over ${tensorParallel}`] : []),
    ].join(', ');
  const perSecond = (value: number) => `${Math.round(value).toLocaleString('en')} tokens/s`;
  const overlapped = (on: boolean) => (on ? '; two microbatches' : '');
  const lines: [string, string][] = [
    ['model', model.name],
    ['prefill on', unit(plan.prefill) + overlapped(prefill.step.overlapped)],
    ['  a device', `${perSecond(prefill.inputPerDevice)} of prompts, hits and all; bound by ${BINDS[prefill.binds]}`],
    ['  a node', perSecond(prefill.inputPerNode)],
    [
      '  first token',
      `${shownTime(prefill.ttft)} with ${(prefill.load * 100).toFixed(0)} % of capacity in use, in steps of ${prefill.tokensPerStep.toLocaleString('en')} tokens`,
    ],
    ['decode on', unit(plan.decode) + overlapped(decode.step.overlapped)],
    [
      '  batch',
      `${decode.batch.toFixed(1)} a device at ${Math.round(decode.context).toLocaleString('en')} tokens of context, limited by ${LIMITS[decode.limit]}; memory has room for ${decode.memoryBatch.toFixed(1)}`,
    ],
    ['  a device', `${perSecond(decode.perDevice)}; bound by ${BINDS[decode.binds]}`],
    ['  a node', perSecond(decode.perNode)],
    ['  a user', `${decode.perUser.toFixed(1)} tokens/s, ${shownTime(decode.tpot)} between tokens`],
    ['mix', `${decodeDevicesPerPrefill.toFixed(2)} decode devices for each prefill device`],
    ...(sold
      ? [
          [
            'margin',
            `${(sold.ofRevenue * 100).toFixed(1)} % of revenue, ${(sold.ofCost * 100).toFixed(0)} % of cost: $${sold.revenue.toFixed(3)} against $${sold.cost.toFixed(3)} a million tokens`,
          ] as [string, string],
        ]
      : []),
  ];
  const where = (name: string, time: Serving['decode']['time'], total: number): Row => ({
    'time of a step': name,
    total: shownTime(total),
    arithmetic: shownTime(time.compute),
    memory: shownTime(time.memory),
    links: shownTime(time.link),
    starting: shownTime(time.launch),
  });
  const cost = [
    { 'dollars a million': 'input, cache miss', cost: `$${usd.miss.toFixed(4)}` },
    { 'dollars a million': 'input, cache hit', cost: `$${usd.hit.toFixed(4)}` },
    { 'dollars a million': 'input, mean', cost: `$${usd.input.toFixed(4)}` },
    { 'dollars a million': 'output', cost: `$${usd.output.toFixed(4)}` },
    { 'dollars a million': 'all tokens of the workload', cost: `$${usd.request.toFixed(4)}` },
  ];
  const steps = [
    where('prefill', prefill.step.time, prefill.step.seconds),
    where('decode', decode.time, decode.tpot * decode.tokensPerStep),
  ];
  return [
    ...lines.map(([label, text]) => `${label.padEnd(15)}${text}`),
    '',
    asText(steps),
    '',
    `${asText(cost)}`,
    `at $${machine.price} an hour for a device, ${(workload.load * 100).toFixed(0)} % of capacity asked for`,
  ].join('\n');
}
