/** `farthing price counts`: parameters, operations and bytes of one model, or of all that are shipped. */
import { Command } from 'commander';
import type { ModelCounts } from '../economics/model-counts.ts';
import { examples, whole } from './arguments.ts';
import { readArchitecture, readJson } from './price-model.ts';
import { bytes, count } from './quantities.ts';
import { asCsv, asText, type Row } from './table.ts';

interface Options {
  readonly context: number;
  readonly batch: readonly number[];
  readonly devices: number;
  readonly expertLoads?: string;
  readonly json?: boolean;
  readonly csv?: boolean;
}

const DEVICES_PER_NODE = 8;

export function priceCountsCommand(): Command {
  return new Command('counts')
    .description('Count parameters, operations, cache and traffic of a model.')
    .argument('[model]', 'a shipped model, a config.json or a checkpoint folder; all shipped models when left out')
    .option('--context <n>', 'tokens that a token looks back on', whole(1, 2 ** 28), 4096)
    .option('--batch <list>', 'sequences that decode together', batches, [1, 8, 32, 128, 256])
    .option('--devices <n>', 'devices that experts are spread over, 8 a node', whole(1, 4096), 64)
    .option('--expert-loads <file>', 'JSON array, tokens that each expert of a layer was given; even unless given')
    .option('--json', 'print as JSON')
    .option('--csv', 'print as CSV')
    .addHelpText(
      'after',
      examples(
        'farthing price counts',
        'farthing price counts deepseek-v3 --context 131072',
        'farthing price counts ./my-model/config.json --json',
      ),
    )
    .action(run);
}

function batches(text: string): number[] {
  return text.split(',').map(whole(1, 1e6));
}

async function run(model: string | undefined, { json, csv, ...options }: Options): Promise<void> {
  const { modelCounts } = await import('../economics/model-counts.ts');
  const { expertShares } = await import('../economics/expert-traffic.ts');
  const { MODELS } = await import('../economics/model-catalogue.ts');
  const settings = {
    context: options.context,
    batches: options.batch,
    devices: options.devices,
    devicesPerNode: Math.min(options.devices, DEVICES_PER_NODE),
  };
  const models = model === undefined ? MODELS : [await readArchitecture(model)];
  const loads = options.expertLoads === undefined ? null : await readJson(options.expertLoads);
  const counted = models.map(({ id, name, architecture }) => {
    const { experts } = architecture;
    const shares = loads && experts ? { expertShares: expertShares(experts, loads, options.expertLoads!) } : {};
    return { id, name, ...modelCounts(architecture, { ...settings, ...shares }) };
  });
  const only = model === undefined ? undefined : counted[0];
  if (json) console.log(JSON.stringify({ settings, models: counted }));
  else if (csv) console.log(asCsv(counted.map(summary)));
  else console.log(only ? describe(only, options) : asText(counted.map(rounded)));
}

type Counted = ModelCounts & { readonly id: string; readonly name: string };

function summary({ id, parameters, flopPerToken, cacheBytesPerToken }: Counted): Row {
  return {
    model: id,
    total: parameters.total,
    active: parameters.active,
    'active with embedding': parameters.activeWithEmbedding,
    'FLOP a token, forward': flopPerToken.forward,
    'FLOP a token, training': flopPerToken.trainingCausal,
    'cache bytes a token': cacheBytesPerToken['as published'].bf16,
  };
}

function rounded(counts: Counted): Row {
  const { model, total, active, ...more } = summary(counts);
  return {
    model: model ?? '',
    total: billions(Number(total)),
    active: billions(Number(active)),
    'with embedding': billions(Number(more['active with embedding'])),
    'GFLOP a token': gigaflop(Number(more['FLOP a token, forward'])),
    'in training': gigaflop(Number(more['FLOP a token, training'])),
    'cache KB a token': (Number(more['cache bytes a token']) / 1000).toFixed(3),
  };
}

const billions = (value: number) => `${(value / 1e9).toFixed(2)} B`;
const gigaflop = (value: number) => (value / 1e9).toFixed(1);

function describe(counts: Counted, { context, devices }: Options): string {
  const { parameters, flopPerToken: flop, cacheBytesPerToken: cache, allToAllBytesPerToken: exchange } = counts;
  const share = (value: number) => `${(value * 100).toFixed(1)} %`;
  const sizes = [
    ['parameters', `${count(parameters.total)}: ${parts(parameters.parts)}`],
    [
      'active',
      `${count(parameters.active)}, ${share(counts.activeShare)}; with the input table ${count(parameters.activeWithEmbedding)}`,
    ],
    ...(parameters.mtp > 0 ? [['MTP modules', `${count(parameters.mtp)} more`]] : []),
    [
      `operations at ${context.toLocaleString('en')}`,
      `${gigaflop(flop.forward)} GFLOP a token; decoding ${gigaflop(flop.decode)}, ${share(flop.attentionShareOfDecode)} of it attention`,
    ],
    [
      'in training',
      `${gigaflop(flop.trainingCausal)} GFLOP a token; ${gigaflop(flop.trainingNoncausal)} with the whole score matrix counted`,
    ],
    ...(exchange
      ? [
          [
            'all-to-all',
            `a layer over ${devices} devices: ${bytes(exchange.remote.dispatch)} out and ${bytes(exchange.remote.combine)} back between nodes, ${bytes(exchange.local.dispatch)} and ${bytes(exchange.local.combine)} inside`,
          ],
        ]
      : []),
  ].map(([name, value]) => `${name!.padEnd(22)}${value}`);
  const caches = Object.entries(cache).map(([attention, layouts]) => ({
    'cache KB a token': attention === 'as published' ? attention : attention.toUpperCase(),
    BF16: (layouts.bf16 / 1000).toFixed(3),
    FP8: (layouts.fp8 / 1000).toFixed(3),
    '6 bits': (layouts.int6 / 1000).toFixed(3),
    'as published': `${(layouts.bf16 / cache['as published'].bf16).toFixed(2)} ×`,
  }));
  const steps = counts.decodeStep.map((step) => ({
    'batch of a step': String(step.batch),
    'experts a layer': step.distinctExpertsPerLayer.toFixed(1),
    share: share(step.shareOfExperts),
    'weights read, FP8': bytes(step.fp8WeightBytes),
    BF16: bytes(step.bf16WeightBytes),
    'a sequence, FP8': bytes(step.fp8WeightBytes / step.batch),
  }));
  return [counts.name, ...sizes, '', asText(caches), '', asText(steps)].join('\n');
}

function parts(of: ModelCounts['parameters']['parts']): string {
  const names = { routedExperts: 'routed experts', sharedExperts: 'shared experts' } as Record<string, string>;
  return Object.entries(of)
    .filter(([, value]) => value > 0)
    .map(([name, value]) => `${names[name] ?? name} ${count(value)}`)
    .join(', ');
}
