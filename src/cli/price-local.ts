/** `farthing price serve --machine local`: what `farthing bench` would measure here, predicted from a probe of the kernels. */
import { readArchitecture } from './price-model.ts';
import { asCsv, asText, type Row } from './table.ts';

const CONTEXTS = [128, 2048, 8192];
const BATCHES = [1, 4, 16];

export interface LocalOptions {
  readonly precision: 'fp8' | 'bf16';
  readonly usdPerHour?: number;
  readonly json?: boolean;
  readonly csv?: boolean;
}

export async function priceLocal(name: string, { precision, usdPerHour = 0, json, csv }: LocalOptions): Promise<void> {
  const { probeEngine } = await import('../engine/probe.ts');
  const { parseArchitecture } = await import('../economics/architecture.ts');
  const { fitEngineRates, localDecode, localPrefill } = await import('../economics/local-engine.ts');
  const { costPerMillion, tokensPerSecond, usdPerHour: rent } = await import('../economics/quantity.ts');
  const model = await readArchitecture(name);
  if (!json && !csv) console.error('Measuring the kernels of this machine …');
  const probe = await probeEngine(precision, 'fast');
  const rates = fitEngineRates(parseArchitecture(probe.config, 'probe'), probe);
  const row = (what: string, context: number, batch: number, speed: number): Row => ({
    what,
    context,
    batch,
    'tokens/s': speed,
    ...(usdPerHour > 0 ? { '$/M': costPerMillion(rent(usdPerHour), tokensPerSecond(speed)) } : {}),
  });
  const rows = CONTEXTS.flatMap((context) => [
    row('prefill', context, 1, localPrefill(model.architecture, rates, context)),
    ...BATCHES.map((batch) => row('decode', context, batch, localDecode(model.architecture, rates, batch, context))),
  ]);
  if (json) console.log(JSON.stringify({ model: model.id, machine: 'local', rates, rows }));
  else console.log(csv ? asCsv(rows) : `${model.name}, this machine\n${asText(rows)}`);
}
