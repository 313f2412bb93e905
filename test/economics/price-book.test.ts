import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { PRICE_BOOK, parsePriceBook } from '../../src/economics/price-book.ts';
import { moneyText } from '../../src/economics/price-book-money.ts';
import { type Call, parseCall, quote, reprice } from '../../src/economics/price-book-quote.ts';

/** Sums worked out by hand from the published tables. */
const vectors: { why: string; call: object; currency: string; least: string; most: string }[] = JSON.parse(
  readFileSync('test/fixtures/economics/price-vectors.json', 'utf8'),
);

test.each(vectors)('$why: $call.model at $call.at', ({ call, currency, least, most }) => {
  const cost = reprice(PRICE_BOOK, parseCall(call, 'vector'), currency);
  expect([moneyText(cost.least), moneyText(cost.most)]).toEqual([least, most]);
  expect(cost.doubts.length > 0).toBe(least !== most || /was last read/.test(cost.doubts[0] ?? ''));
});

test('whether an hour is a peak hour is what the clock in Shanghai says', () => {
  const clock = new Intl.DateTimeFormat('en-GB', {
    timeZone: 'Asia/Shanghai',
    weekday: 'short',
    hour: '2-digit',
    minute: '2-digit',
    hourCycle: 'h23',
    month: 'numeric',
    day: 'numeric',
  });
  const from = Date.parse('2026-09-10T04:00Z');
  const to = Date.parse('2026-12-31T15:59Z');
  fc.assert(
    fc.property(fc.integer({ min: from, max: to }), (at) => {
      const part = Object.fromEntries(clock.formatToParts(at).map(({ type, value }) => [type, value]));
      const time = `${part.hour}:${part.minute}`;
      const holiday =
        (Number(part.month) === 9 && Number(part.day) >= 25 && Number(part.day) <= 27) ||
        (Number(part.month) === 10 && Number(part.day) <= 7);
      const peak =
        !['Sat', 'Sun'].includes(part.weekday!) &&
        !holiday &&
        ((time >= '09:00' && time < '12:00') || (time >= '14:00' && time < '18:00'));
      const { rates } = quote(PRICE_BOOK, 'deepseek-flash', at);
      expect(rates.map(({ window }) => window)).toEqual([peak ? 'peak' : null]);
    }),
    { numRuns: 2000 },
  );
});

const tokens = fc.integer({ min: 0, max: 1e12 });
const calls = fc.record({
  model: fc.constantFrom('deepseek-chat', 'deepseek-v4-flash', 'deepseek-v4-pro', 'gpt-4o-mini'),
  at: fc.integer({ min: Date.parse('2026-04-24T00:00Z'), max: Date.parse('2026-07-24T15:58Z') }),
  hitTokens: tokens,
  missTokens: tokens,
  outputTokens: tokens,
});

test('the parts of a call cost together what the whole does, to the last digit', () => {
  fc.assert(
    fc.property(calls, fc.double({ min: 0, max: 1, noNaN: true }), (call, share) => {
      const cut = (count: number) => Math.floor(count * share);
      const part: Call = {
        ...call,
        hitTokens: cut(call.hitTokens),
        missTokens: cut(call.missTokens),
        outputTokens: cut(call.outputTokens),
      };
      const rest: Call = {
        ...call,
        hitTokens: call.hitTokens - part.hitTokens,
        missTokens: call.missTokens - part.missTokens,
        outputTokens: call.outputTokens - part.outputTokens,
      };
      const [whole, one, other] = [call, part, rest].map((c) => reprice(PRICE_BOOK, c));
      // On a day of a change the bounds of the parts may come from different prices.
      if (whole!.least === whole!.most) expect(one!.least + other!.least).toBe(whole!.least);
      expect(one!.least + other!.least <= whole!.least).toBe(true);
      expect(one!.most + other!.most >= whole!.most).toBe(true);
    }),
  );
});

test('a cost never falls when a price rises', () => {
  const price = fc.integer({ min: 0, max: 999_999_999 }).map((n) => `${n / 1000}`);
  const raised = fc.constantFrom('cache_hit', 'cache_miss', 'output');
  const hour = fc.integer({ min: 0, max: 23 });
  fc.assert(
    fc.property(
      fc.tuple(price, price, price, price),
      raised,
      fc.boolean(),
      hour,
      calls,
      (four, field, inWindow, start, call) => {
        const book = (over: object, windowOver: object) =>
          parsePriceBook(
            {
              prices: [
                {
                  model: 'm',
                  currency: 'USD',
                  from: '2026',
                  cache_hit: four[0],
                  cache_miss: four[1],
                  output: four[2],
                  ...over,
                  windows: [
                    {
                      name: 'w',
                      utc_offset: '+08:00',
                      days: [1, 2, 3],
                      hours: [[`${String(start).padStart(2, '0')}:00`, '12:00']],
                      cache_hit: four[2],
                      cache_miss: four[1],
                      output: four[0],
                      ...windowOver,
                    },
                  ],
                },
              ],
            },
            'book',
          );
        const before = { cache_hit: four[0], cache_miss: four[1], output: four[2] };
        const inside = { cache_hit: four[2], cache_miss: four[1], output: four[0] };
        const higher = (old: string) => ({ [field]: String(Math.max(Number(old), Number(four[3]))) });
        const low = reprice(book({}, {}), { ...call, model: 'm' });
        const high = reprice(inWindow ? book({}, higher(inside[field])) : book(higher(before[field]), {}), {
          ...call,
          model: 'm',
        });
        expect(high.least >= low.least && high.most >= low.most).toBe(true);
      },
    ),
  );
});

describe('what is wrong with a book is named', () => {
  const entry = { model: 'm', currency: 'USD', from: '2026-01-01', cache_hit: null, cache_miss: '1', output: '2' };
  const window = {
    name: 'w',
    utc_offset: '+08:00',
    days: [1],
    hours: [['09:00', '12:00']],
    cache_hit: null,
    cache_miss: '1',
    output: '2',
  };
  test.each([
    [
      { ...entry, cache_miss: '-0.5' },
      'my.json: "prices.0.cache_miss" is "-0.5", expected a price from 0 to 999999 with at most 9 decimals',
    ],
    [{ ...entry, output: 0.28 }, '"prices.0.output" is 0.28, expected a price from 0'],
    [{ ...entry, from: '2026-02-30' }, '"prices.0.from" is "2026-02-30", expected a year, month, day or moment in UTC'],
    [{ ...entry, to: '2025' }, '"prices.0.from" is "2026-01-01", expected a moment before its end 2025'],
    [
      { ...entry, windows: [{ ...window, days: [0] }] },
      '"prices.0.windows.0.days.0" is 0, expected a whole number from 1 to 7',
    ],
    [
      { ...entry, windows: [{ ...window, hours: [['9', '24:00']] }] },
      '"prices.0.windows.0.hours.0.1" is "24:00", expected a time of day',
    ],
    [
      { ...entry, windows: [{ ...window, off_on_holidays_of: 'moon' }] },
      '"prices.0.windows.0.off_on_holidays_of" is "moon"',
    ],
    [{ ...entry, currency: 'XYZ' }, '"prices.0.currency" is "XYZ", expected one of "USD"'],
  ])('%j', (bad, message) => {
    expect(() => parsePriceBook({ prices: [bad] }, 'my.json')).toThrow(message);
  });
  test('two prices at once', () => {
    const book = {
      prices: [
        { ...entry, to: '2026-06-01' },
        { ...entry, from: '2026-05-01' },
      ],
    };
    expect(() => parsePriceBook(book, 'my.json')).toThrow(
      '"prices.1.from" is "2026-05-01", expected 2026-06-01 or later',
    );
  });
});

describe('a call without a price is refused, saying what there is', () => {
  const at = Date.parse('2026-08-01T00:00Z');
  test.each([
    [() => quote(PRICE_BOOK, 'gpt-9', at), 'the price book has no model "gpt-9"; it has deepseek-v2, '],
    [
      () => quote(PRICE_BOOK, 'deepseek-chat', at),
      'the price book has it from 2024-05-06 to 2026-07-24T15:59Z, in USD and CNY',
    ],
    [() => quote(PRICE_BOOK, 'deepseek-v4-pro', at, 'EUR'), 'deepseek-v4-pro had no price in EUR at 2026-08-01'],
    [
      () =>
        reprice(PRICE_BOOK, {
          model: 'deepseek-v2',
          at: Date.parse('2024-06-01T00:00Z'),
          hitTokens: 5,
          missTokens: 0,
          outputTokens: 0,
        }),
      'deepseek-v2 had no price for cache hits from 2024-05-06 on, and the call has 5 such tokens',
    ],
  ])('%#', (act, message) => {
    expect(act).toThrow(message);
  });
  test.each([
    [{ model: 'm', usage: { prompt_tokens: 1, completion_tokens: 1 } }, '"at" is missing'],
    [
      { model: 'm', at: '2026-08-01', usage: { prompt_tokens: 1, completion_tokens: 1 } },
      '"at" is "2026-08-01", expected a moment with its zone',
    ],
    [
      { model: 'm', created: 1, usage: { prompt_tokens: -1, completion_tokens: 1 } },
      '"usage.prompt_tokens" is -1, expected a whole number from 0',
    ],
    [
      { model: 'm', created: 1, usage: { prompt_tokens: 4, completion_tokens: 1, prompt_cache_hit_tokens: 5 } },
      '"usage.prompt_tokens" is 4, expected at least the 5 tokens found in the cache',
    ],
  ])('%j', (call, message) => {
    expect(() => parseCall(call, 'calls.jsonl, line 3')).toThrow(message);
  });
});

test('every price says where it was read', () => {
  expect(PRICE_BOOK.prices.filter(({ source, confidence }) => !source || confidence === 'from-memory')).toEqual([]);
});
