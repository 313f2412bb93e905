/**
 * What a past call cost: every price that may have been in force at its moment. One in most cases, and then the cost is
 * exact; several where the moment of a change or a holiday is not known, and then the cost lies between two bounds.
 */
import { z } from 'zod';
import { number, parseFields, refuseIn, whole } from '../model/config-fields.ts';
import type { Price, PriceBook, TokenPrices } from './price-book.ts';
import { dayText, type Moment, within } from './price-book-hours.ts';
import { costOf, type Money } from './price-book-money.ts';

export class PriceError extends Error {
  override name = 'PriceError';
}

export interface Quote {
  /** As asked for, and what it meant then. */
  readonly name: string;
  readonly currency: string;
  readonly at: number;
  readonly rates: readonly Rate[];
  /** Why there is more than one rate, or why the one may be outdated. */
  readonly doubts: readonly string[];
}

export interface Rate extends TokenPrices {
  readonly price: Price;
  /** The hours it was for; null: all others. */
  readonly window: string | null;
}

/**
 * @param name a model or an alias of one
 * @param at milliseconds since 1970; providers count the moment at which an answer is complete
 * @throws PriceError when the book has no such name, or no price at that moment
 */
export function quote(book: PriceBook, name: string, at: number, currency = 'USD'): Quote {
  const doubts: string[] = [];
  const models = modelsMeant(book, name, at, doubts);
  const prices = book.prices.filter(
    (price) => models.includes(price.model) && price.currency === currency && mayHold(price, at),
  );
  if (prices.length === 0) throw new PriceError(nothingFound(book, name, at, currency));
  const rates = prices.flatMap((price) => ratesOf(price, at, doubts));
  for (const { from } of prices) {
    if (prices.length > 1 && at < from.latest && at >= from.earliest) {
      doubts.push(`of the change to the price from ${from.text} only the ${precision(from)} is known`);
    }
  }
  for (const { seen, model } of prices) {
    if (seen && at > seen.latest)
      doubts.push(`the price of ${model} was last read ${seen.text}; it may have changed since`);
  }
  return { name, currency, at, rates, doubts: [...new Set(doubts)] };
}

/** Tokens of one call, and when it was complete. */
export interface Call {
  readonly model: string;
  readonly at: number;
  readonly hitTokens: number;
  readonly missTokens: number;
  readonly outputTokens: number;
}

export interface Cost extends Quote {
  /** Equal where the cost is exact. */
  readonly least: Money;
  readonly most: Money;
}

/** @throws PriceError when there is no price for the call */
export function reprice(book: PriceBook, call: Call, currency = 'USD'): Cost {
  const quoted = quote(book, call.model, call.at, currency);
  const costs = quoted.rates.map(({ hit, miss, output, price }) => {
    if (hit === null && call.hitTokens > 0) {
      throw new PriceError(
        `${price.model} had no price for cache hits from ${price.from.text} on, and the call has ${call.hitTokens} such tokens`,
      );
    }
    return costOf(call.hitTokens, hit ?? 0n) + costOf(call.missTokens, miss) + costOf(call.outputTokens, output);
  });
  costs.sort((a, b) => (a < b ? -1 : 1));
  return { ...quoted, least: costs[0]!, most: costs.at(-1)! };
}

/**
 * A call as the answer of an API tells of it: `model`, `created` in seconds since 1970 or `at` as text with a zone, and
 * `usage` as OpenAI or DeepSeek write it.
 * @throws ConfigError naming the field, what was found and what is allowed
 */
export function parseCall(json: unknown, where: string): Call {
  const { model, created, at, usage } = parseFields(callFields, Object(json), where);
  const refuse = refuseIn(where);
  if (created === undefined && at === undefined) refuse('at', undefined, 'the moment of the call, or "created"');
  const hitTokens = usage.prompt_cache_hit_tokens ?? usage.prompt_tokens_details?.cached_tokens ?? 0;
  if (hitTokens > usage.prompt_tokens) {
    refuse('usage.prompt_tokens', usage.prompt_tokens, `at least the ${hitTokens} tokens found in the cache`);
  }
  return {
    model,
    at: at === undefined ? created! * 1000 : parseInstant(at, () => refuse('at', at, INSTANT)),
    hitTokens,
    missTokens: usage.prompt_tokens - hitTokens,
    outputTokens: usage.completion_tokens,
  };
}

const INSTANT = 'a moment with its zone, such as 2025-03-01T17:00:00Z or 2025-03-02T01:00:00+08:00';

/** @returns milliseconds since 1970 */
export function parseInstant(text: string, refuse: (expected: string) => never): number {
  const at = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2})$/.test(text)
    ? Date.parse(text)
    : NaN;
  return Number.isNaN(at) ? refuse(INSTANT) : at;
}

const tokens = whole(0, 1e12);
const callFields = z.object({
  model: z.string('a name').min(1, 'a name'),
  created: number(0, 1e11).optional(),
  at: z.string(INSTANT).optional(),
  usage: z.object(
    {
      prompt_tokens: tokens,
      completion_tokens: tokens,
      prompt_cache_hit_tokens: tokens.optional(),
      prompt_tokens_details: z.object({ cached_tokens: tokens.optional() }).nullish(),
    },
    'the tokens of the call',
  ),
});

function modelsMeant({ aliases, prices }: PriceBook, name: string, at: number, doubts: string[]): string[] {
  const meant = aliases.filter((alias) => alias.name === name && mayHold(alias, at));
  for (const { from, model } of meant) {
    if (meant.length > 1 && at >= from.earliest && at < from.latest) {
      doubts.push(`of the change of ${name} to ${model} only the ${precision(from)} is known: ${from.text}`);
    }
  }
  const models = meant.map(({ model }) => model);
  // Before or after its time as an alias a name may be a model.
  const certain = meant.some(({ from, to }) => at >= from.latest && (to === null || at < to.earliest));
  if (!certain && prices.some(({ model }) => model === name)) models.push(name);
  return models;
}

/** Whether the term may hold at a moment: its first and last moment may be known roughly. */
function mayHold({ from, to }: { readonly from: Moment; readonly to: Moment | null }, at: number): boolean {
  return at >= from.earliest && (to === null || at < to.latest);
}

function ratesOf(price: Price, at: number, doubts: string[]): Rate[] {
  const rates: Rate[] = [];
  for (const { name, hours, hit, miss, output } of price.windows) {
    const inside = within(hours, at);
    if (inside === 'no') continue;
    rates.push({ price, window: name, hit, miss, output });
    if (inside === 'yes') return rates;
    const { calendar } = hours;
    if (calendar) {
      doubts.push(
        `the calendar "${calendar.id}" is known to ${dayText(calendar.covers.last)}; whether the day is a holiday is not`,
      );
    }
  }
  const { hit, miss, output } = price;
  return [...rates, { price, window: null, hit, miss, output }];
}

function precision({ text }: Moment): string {
  return { 4: 'year', 7: 'month' }[text.length] ?? 'day';
}

function nothingFound({ prices, aliases }: PriceBook, name: string, at: number, currency: string): string {
  const terms = [...aliases.filter((alias) => alias.name === name), ...prices.filter(({ model }) => model === name)];
  if (terms.length === 0) {
    const names = new Set([...prices.map(({ model }) => model), ...aliases.map((alias) => alias.name)]);
    return `the price book has no model "${name}"; it has ${[...names].join(', ')}`;
  }
  const models = terms.map(({ model }) => model);
  const currencies = new Set(prices.filter(({ model }) => models.includes(model)).map((price) => price.currency));
  const first = terms.reduce((a, b) => (b.from.earliest < a.from.earliest ? b : a));
  const last = terms.reduce((a, b) => ((b.to?.latest ?? Infinity) > (a.to?.latest ?? Infinity) ? b : a));
  const until = last.to ? ` to ${last.to.text}` : ' on';
  return (
    `${name} had no price in ${currency} at ${new Date(at).toISOString()}; ` +
    `the price book has it from ${first.from.text}${until}, in ${[...currencies].join(' and ')}`
  );
}
