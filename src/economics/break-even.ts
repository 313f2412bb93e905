/**
 * Renting machines against paying an API, by the tokens of a month. Machines come in whole units: few tokens pay for
 * devices that wait, an API for what is used.
 */
import type { Price } from './price-book.ts';
import { within } from './price-book-hours.ts';
import { type Usd, type UsdPerMillion, usd, usdPerMillion } from './quantity.ts';
import type { Serving, ServingPlan, Workload } from './serving.ts';

const MONTH_SECONDS = (365 / 12) * 86_400;

export interface Rented {
  /** Prefill and decode on units of their own, or one kind of unit that does both in turns. */
  readonly apart: boolean;
  readonly prefillDevices: number;
  readonly decodeDevices: number;
  readonly cost: Usd;
}

/** Whole units for a month's tokens, input and output in the workload's proportion. */
export function rentFor(
  plan: ServingPlan,
  serving: Serving,
  workload: Workload,
  apart: boolean,
  tokens: number,
): Rented {
  const { prefill, decode } = plan;
  const { promptTokens, outputTokens } = workload;
  const share = promptTokens / (promptTokens + outputTokens);
  const reading = (tokens * share) / serving.prefill.inputPerDevice / (MONTH_SECONDS * serving.prefill.load);
  const writing = (tokens * (1 - share)) / serving.decode.perDevice / (MONTH_SECONDS * workload.load);
  const units = (months: number, devices: number) => Math.max(1, Math.ceil(months / devices)) * devices;
  const prefillDevices = apart ? units(reading, prefill.devices) : 0;
  const decodeDevices = units(apart ? writing : reading + writing, decode.devices);
  const hour = prefillDevices * prefill.machine.price + decodeDevices * decode.machine.price;
  return { apart, prefillDevices, decodeDevices, cost: usd((hour * MONTH_SECONDS) / 3600) };
}

/**
 * What a million tokens of the workload cost at an API, its calls spread evenly over a week without holidays. Where no
 * price for cache hits was published they cost what misses do.
 */
export function apiPrice(price: Price, { promptTokens, outputTokens, hitShare }: Workload): UsdPerMillion {
  const { hit, miss, output } = weekMean(price);
  const input = hit * hitShare + miss * (1 - hitShare);
  return usdPerMillion((input * promptTokens + output * outputTokens) / (promptTokens + outputTokens));
}

const HALF_HOUR_MS = 1_800_000;
const HALF_HOURS = 336;
const PER_NANO = 1e-9;

/** Windows begin and end on half hours, as all published ones do. */
function weekMean(price: Price): { hit: number; miss: number; output: number } {
  const sum = { hit: 0, miss: 0, output: 0 };
  for (let i = 0; i < HALF_HOURS; i++) {
    const rate =
      price.windows.find(({ hours }) => within({ ...hours, calendar: null }, i * HALF_HOUR_MS) === 'yes') ?? price;
    sum.hit += Number(rate.hit ?? rate.miss);
    sum.miss += Number(rate.miss);
    sum.output += Number(rate.output);
  }
  const mean = (total: number) => (total / HALF_HOURS) * PER_NANO;
  return { hit: mean(sum.hit), miss: mean(sum.miss), output: mean(sum.output) };
}

const LEAST_TOKENS = 1e6;
const MOST_TOKENS = 1e17;
const STEP = 1.01;

/**
 * The least tokens a month from which renting costs less than the API, or null where no volume does.
 * @param rent what a month's tokens cost in rent: steps that grow with the tokens
 */
export function breakEven(rent: (tokens: number) => number, perMillion: UsdPerMillion): number | null {
  const api = (tokens: number) => (tokens * perMillion) / 1e6;
  for (let tokens = LEAST_TOKENS; tokens < MOST_TOKENS; tokens *= STEP) {
    const cost = rent(tokens);
    if (cost > api(tokens)) continue;
    // On the same step of the rent the line of the API is met exactly.
    const met = (cost / perMillion) * 1e6;
    return rent(met) === cost ? met : tokens;
  }
  return null;
}
