/** What is compared: model, machine, workload and an API to compare with. It lives in the address of the page. */

import { TECHNIQUES, type Technique } from '../../src/economics/explanation.ts';
import { MACHINES } from '../../src/economics/machine.ts';
import { type CatalogueModel, MODELS } from '../../src/economics/model-catalogue.ts';
import { PRICE_BOOK, type Price } from '../../src/economics/price-book.ts';

export interface Scenario {
  readonly model: string;
  readonly machine: string;
  /** Rent of one device in dollars an hour; null: as in the catalogue. */
  readonly rent: number | null;
  readonly prompt: number;
  readonly output: number;
  /** Per cent of prompt tokens found in the prefix cache. */
  readonly hits: number;
  /** Least tokens a second for each user. */
  readonly speed: number;
  /** Per cent of capacity that is asked for, on average. */
  readonly load: number;
  readonly precision: 'fp8' | 'bf16';
  readonly cache: 'bf16' | 'fp8';
  readonly spread: boolean;
  /** Per cent of drafted tokens kept; 0: no drafting. */
  readonly mtp: number;
  readonly api: string;
  /** Million tokens a month, input and output together. */
  readonly volume: number;
  /** Which price the waterfall takes apart. */
  readonly measure: 'output' | 'input';
  /** Its steps in order, joined by dots; `free`: shares that depend on no order. */
  readonly order: string;
}

/** Models whose attention the cost model knows. */
export const SERVABLE: readonly CatalogueModel[] = MODELS.filter(
  ({ architecture }) => architecture.attention.kind !== 'compressed',
);

/** Prices in dollars by a key for the address: the model and when the price began. */
export const API_PRICES: ReadonlyMap<string, Price> = new Map(
  PRICE_BOOK.prices
    .filter(({ currency, hit }) => currency === 'USD' && hit !== null)
    .map((price) => [`${price.model}@${price.from.text}`, price]),
);

export const WORKLOADS = [
  { id: 'day', name: 'A large service’s day', prompt: 4400, output: 1200, hits: 56 },
  { id: 'chat', name: 'Chat', prompt: 1500, output: 400, hits: 40 },
  { id: 'reasoning', name: 'Reasoning', prompt: 800, output: 6000, hits: 20 },
  { id: 'agent', name: 'Agent', prompt: 40_000, output: 600, hits: 90 },
  { id: 'documents', name: 'Documents', prompt: 16_000, output: 800, hits: 0 },
] as const;

export const START: Scenario = {
  model: 'deepseek-v3',
  machine: 'h800-sxm',
  rent: null,
  prompt: 4400,
  output: 1200,
  hits: 56,
  speed: 21,
  load: 100,
  precision: 'fp8',
  cache: 'bf16',
  spread: true,
  mtp: 85,
  api: 'deepseek-v3@2025-02-08T16:00Z',
  volume: 1_000_000,
  measure: 'output',
  order: TECHNIQUES.join('.'),
};

type NumberField = { [K in keyof Scenario]: Scenario[K] extends number | null ? K : never }[keyof Scenario];

export const RANGES: Readonly<Record<NumberField, { readonly least: number; readonly greatest: number }>> = {
  rent: { least: 0.05, greatest: 20 },
  prompt: { least: 100, greatest: 120_000 },
  output: { least: 10, greatest: 30_000 },
  hits: { least: 0, greatest: 99 },
  speed: { least: 1, greatest: 200 },
  load: { least: 5, greatest: 100 },
  mtp: { least: 0, greatest: 95 },
  volume: { least: 10, greatest: 100_000_000 },
};

const CHOICES: { readonly [K in keyof Scenario]?: readonly Scenario[K][] } = {
  model: SERVABLE.map(({ id }) => id),
  machine: MACHINES.map(({ id }) => id),
  precision: ['fp8', 'bf16'],
  cache: ['bf16', 'fp8'],
  api: [...API_PRICES.keys()],
  measure: ['output', 'input'],
};

/** Only what differs from the start is written. */
export function toAddress(scenario: Scenario): string {
  const query = new URLSearchParams();
  for (const key of Object.keys(START) as (keyof Scenario)[]) {
    if (scenario[key] !== START[key]) query.set(key, String(scenario[key]));
  }
  return query.toString();
}

/** What does not fit is left at its start, so that an old or a torn address still opens the page. */
export function fromAddress(query: string): Scenario {
  const given = new URLSearchParams(query);
  const read: Record<string, unknown> = {};
  for (const [key, text] of given) {
    if (key in RANGES) {
      const { least, greatest } = RANGES[key as NumberField];
      const value = Number(text);
      if (text !== '' && value >= least && value <= greatest) read[key] = value;
    } else if (key === 'spread') {
      if (text === 'true' || text === 'false') read[key] = text === 'true';
    } else if (key === 'order') {
      if (text === 'free' || readOrder(text)) read[key] = text;
    } else if (CHOICES[key as keyof Scenario]?.includes(text as never)) {
      read[key] = text;
    }
  }
  return { ...START, ...read };
}

/** @returns null where it is not every technique once */
export function readOrder(text: string): Technique[] | null {
  const order = TECHNIQUES.toSorted((a, b) => text.split('.').indexOf(a) - text.split('.').indexOf(b));
  return order.join('.') === text ? order : null;
}
