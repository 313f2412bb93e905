/**
 * Published API prices over time: when each was in force, at which hours another one was, and which name meant which
 * model. Parsed once, from the book of this package or from one of the user's own.
 */
import { z } from 'zod';
import { oneOf, parseFields, refuseIn, whole } from '../model/config-fields.ts';
import shipped from './data/prices.json' with { type: 'json' };
import {
  type Calendar,
  dayNumber,
  type Hours,
  type Moment,
  minuteOfDay,
  offsetMinutes,
  parseMoment,
} from './price-book-hours.ts';
import { PRICE_DECIMALS, parsePrice, type TokenPrice } from './price-book-money.ts';

export interface PriceBook {
  /** The prices of a model in a currency stand together, by time. */
  readonly prices: readonly Price[];
  readonly aliases: readonly Alias[];
}

/** For a million tokens. A null cache hit: no such price was published. */
export interface TokenPrices {
  readonly hit: TokenPrice | null;
  readonly miss: TokenPrice;
  readonly output: TokenPrice;
}

export interface Price extends TokenPrices {
  readonly model: string;
  readonly currency: string;
  readonly from: Moment;
  /** null: still in force, as far as known. */
  readonly to: Moment | null;
  /** When a price without an end was last read; null where that is not known. */
  readonly seen: Moment | null;
  readonly windows: readonly Window[];
  readonly source: string;
  readonly confidence: string;
}

/** Hours with other prices, such as peak. */
export interface Window extends TokenPrices {
  readonly name: string;
  readonly hours: Hours;
}

/** A name that meant a model for a time. */
export interface Alias {
  readonly name: string;
  readonly model: string;
  readonly from: Moment;
  readonly to: Moment | null;
}

/**
 * @param json as data/prices.json, which says what its fields mean
 * @throws ConfigError naming the field, what was found and what is allowed
 */
export function parsePriceBook(json: unknown, fileName: string): PriceBook {
  const fields = parseFields(bookFields, Object(json), fileName);
  const refuse = refuseIn(fileName);
  const calendars = new Map(fields.calendars.map((calendar) => [calendar.id, calendarOf(calendar)]));
  const prices = fields.prices.map(({ cache_hit: hit, cache_miss: miss, windows, ...entry }, i): Price => {
    const calendarNamed = (id: string, at: string): Calendar =>
      calendars.get(id) ?? refuse(at, id, `the id of a calendar of this file: ${[...calendars.keys()].join(', ')}`);
    return {
      ...entry,
      to: entry.to ?? null,
      seen: entry.seen ?? null,
      hit,
      miss,
      windows: windows.map(({ name, off_on_holidays_of: id, cache_hit, cache_miss, output, ...hours }, w) => ({
        name,
        hit: cache_hit,
        miss: cache_miss,
        output,
        hours: {
          days: hours.days,
          spans: hours.hours.map(([start, end]) => ({ start, end })),
          offsetMinutes: hours.utc_offset,
          calendar: id ? calendarNamed(id, `prices.${i}.windows.${w}.off_on_holidays_of`) : null,
        },
      })),
    };
  });
  const line = ({ model, currency }: Price) => `${model} ${currency}`;
  return {
    prices: inTurn(prices, line, (i, expected) => refuse(`prices.${i}.from`, fields.prices[i]!.from.text, expected)),
    aliases: inTurn(
      fields.aliases.map((alias) => ({ ...alias, to: alias.to ?? null })),
      ({ name }) => name,
      (i, expected) => refuse(`aliases.${i}.from`, fields.aliases[i]!.from.text, expected),
    ),
  };
}

interface Term {
  readonly from: Moment;
  readonly to: Moment | null;
}

/** Each term by its line and time; one without an end lasts until the next of its line begins. */
function inTurn<T extends Term>(
  terms: readonly T[],
  line: (term: T) => string,
  refuse: (i: number, expected: string) => never,
): T[] {
  const lines = new Map<string, { term: T; index: number }[]>();
  terms.forEach((term, index) => {
    if (term.to && term.to.latest <= term.from.earliest) refuse(index, `a moment before its end ${term.to.text}`);
    lines.set(line(term), [...(lines.get(line(term)) ?? []), { term, index }]);
  });
  return [...lines.values()].flatMap((line) => {
    line.sort((a, b) => a.term.from.earliest - b.term.from.earliest);
    return line.map(({ term }, i) => {
      const next = line[i + 1];
      if (!next) return term;
      if (term.to && next.term.from.earliest < term.to.earliest) {
        refuse(next.index, `${term.to.text} or later, when the one before it ends`);
      }
      return { ...term, to: term.to ?? next.term.from };
    });
  });
}

function calendarOf({ id, days_off, ...fields }: z.infer<typeof calendarFields>): Calendar {
  return {
    id,
    covers: { first: fields.from, last: fields.to },
    daysOff: days_off.map(([first, last]) => ({ first, last })),
  };
}

function matching(pattern: RegExp, expected: string) {
  return z.string(expected).regex(pattern, expected);
}

/** Text in which `parse` finds a value, or null. */
function readAs<T>(parse: (text: string) => T | null, expected: string) {
  return z.string(expected).transform((text, context): T => {
    const value = parse(text);
    if (value !== null) return value;
    context.addIssue({ code: 'custom', message: expected });
    return z.NEVER;
  });
}

const name = z.string('a name').min(1, 'a name');
const text = z.string('a text');
const moment = readAs(parseMoment, 'a year, month, day or moment in UTC such as 2026-04-26T12:15Z');
const day = readAs(
  (text) => (text.length === 10 && parseMoment(text) ? dayNumber(text) : null),
  'a day such as 2026-10-01',
);
const utcOffset = matching(/^[+-](0\d|1[0-4]):[0-5]\d$/, 'a distance from UTC such as +08:00').transform(offsetMinutes);
const clock = matching(/^([01]\d|2[0-3]):[0-5]\d$/, 'a time of day from 00:00 to 23:59').transform(minuteOfDay);
const price = matching(
  new RegExp(`^\\d{1,6}(\\.\\d{1,${PRICE_DECIMALS}})?$`),
  `a price from 0 to 999999 with at most ${PRICE_DECIMALS} decimals, as text`,
).transform(parsePrice);
const tokenPrices = { cache_hit: price.nullable(), cache_miss: price, output: price };

const calendarFields = z.object({ id: name, from: day, to: day, days_off: z.array(z.tuple([day, day])) });

const windowFields = z.object({
  name,
  utc_offset: utcOffset,
  hours: z.array(z.tuple([clock, clock])),
  days: z.array(whole(1, 7)),
  off_on_holidays_of: name.optional(),
  ...tokenPrices,
});

const bookFields = z.object({
  calendars: z.array(calendarFields, 'a list').default([]),
  prices: z.array(
    z.object({
      model: name,
      currency: oneOf(['USD', 'CNY', 'EUR', 'GBP', 'JPY']),
      from: moment,
      to: moment.optional(),
      seen: moment.optional(),
      ...tokenPrices,
      windows: z.array(windowFields, 'a list').default([]),
      source: text.default(''),
      confidence: text.default(''),
    }),
    'a list',
  ),
  aliases: z.array(z.object({ name, model: name, from: moment, to: moment.optional() }), 'a list').default([]),
});

/** The prices that come with the package. Below the schema, which must exist before anything is parsed with it. */
export const PRICE_BOOK: PriceBook = parsePriceBook(shipped, 'prices.json');
