/** `farthing price book`: published API prices, what a model cost at a moment, what past calls cost. */
import { readFile } from 'node:fs/promises';
import { Command, InvalidArgumentError } from 'commander';
import type { PriceBook, TokenPrices } from '../economics/price-book.ts';
import { moneyText, priceText } from '../economics/price-book-money.ts';
import type { Call, Cost } from '../economics/price-book-quote.ts';
import { examples, whole } from './arguments.ts';
import { readJson } from './price-model.ts';
import { asCsv, asText, type Row } from './table.ts';

interface Options {
  readonly at?: string;
  readonly hit: number;
  readonly miss: number;
  readonly output: number;
  readonly calls?: string;
  readonly currency: string;
  readonly book?: string;
  readonly json?: boolean;
  readonly csv?: boolean;
}

const tokens = whole(0, 1e12);

export function priceBookCommand(): Command {
  return new Command('book')
    .description('Published API prices over time; what past calls cost, exactly.')
    .argument('[model]', 'a model or an alias of one; all prices when left out')
    .option('--at <moment>', 'price at a moment such as 2025-03-01T17:00:00Z (with a zone; now unless given)')
    .option('--hit <n>', 'input tokens found in the cache', tokens, 0)
    .option('--miss <n>', 'input tokens not found there', tokens, 0)
    .option('--output <n>', 'output tokens', tokens, 0)
    .option('--calls <file>', 'JSON lines, each the answer of an API or {model, at, usage}')
    .option('--currency <code>', 'of the prices', currency, 'USD')
    .option('--book <file>', 'a price book of your own (default: the shipped one)')
    .option('--json', 'print as JSON')
    .option('--csv', 'print as CSV')
    .addHelpText(
      'after',
      examples(
        'farthing price book',
        'farthing price book deepseek-chat --at 2025-03-01T17:00:00Z',
        'farthing price book deepseek-flash --at 2026-11-24T10:30:00+08:00 --hit 12000 --miss 800 --output 600',
        'farthing price book --calls calls.jsonl --csv',
      ),
    )
    .action(run);
}

function currency(text: string): string {
  if (!/^[A-Z]{3}$/.test(text)) throw new InvalidArgumentError('Expected three capital letters, such as USD or CNY.');
  return text;
}

async function run(model: string | undefined, options: Options): Promise<void> {
  const { PRICE_BOOK, parsePriceBook } = await import('../economics/price-book.ts');
  const book = options.book === undefined ? PRICE_BOOK : parsePriceBook(await readJson(options.book), options.book);
  if (options.calls !== undefined) await printCalls(book, options.calls, options);
  else if (model === undefined) printPrices(book, options);
  else await printQuote(book, model, options);
}

function printPrices({ prices, aliases }: PriceBook, { currency, json, csv }: Options): void {
  const rows = prices
    .filter((price) => price.currency === currency)
    .flatMap((price) =>
      [...price.windows.map((window) => ({ ...window, window: window.name })), { ...price, window: null }].map(
        (rate) => ({
          model: price.model,
          from: price.from.text,
          to: price.to?.text ?? null,
          ...rateColumns(rate),
          currency,
          ...(json || csv ? { confidence: price.confidence, source: price.source } : {}),
        }),
      ),
    );
  const names = aliases.map(({ name, model, from, to }) => ({ name, model, from: from.text, to: to?.text ?? null }));
  if (json) console.log(JSON.stringify({ prices: rows, aliases: names }));
  else if (csv) console.log(asCsv(rows));
  else console.log(`${asText(rows)}\n\n${asText(names)}`);
}

async function printQuote(book: PriceBook, model: string, { hit, miss, output, ...options }: Options): Promise<void> {
  const { parseInstant, reprice } = await import('../economics/price-book-quote.ts');
  const text = options.at ?? new Date().toISOString();
  const at = parseInstant(text, (expected) => {
    throw new Error(`--at is ${JSON.stringify(text)}, expected ${expected}`);
  });
  const call = { model, at, hitTokens: hit, missTokens: miss, outputTokens: output };
  const cost = reprice(book, call, options.currency);
  const rows = cost.rates.map((rate) => ({
    model: rate.price.model,
    from: rate.price.from.text,
    ...rateColumns(rate),
  }));
  const priced = hit + miss + output > 0 ? costColumns(cost) : null;
  if (options.json) {
    const sources = cost.rates.map(({ price: { confidence, source } }) => ({ confidence, source }));
    const { currency, doubts } = cost;
    const withSource = rows.map((row, i) => ({ ...row, ...sources[i] }));
    console.log(
      JSON.stringify({ model, at: new Date(at).toISOString(), currency, rates: withSource, ...priced, doubts }),
    );
  } else if (options.csv) console.log(asCsv(rows.map((row) => ({ ...row, currency: cost.currency, ...priced }))));
  else {
    const lines = [asText(rows), `${cost.currency} for a million tokens`];
    if (priced) lines.push('', inWords(cost.currency, priced));
    console.log([...lines, ...cost.doubts].join('\n'));
  }
}

async function printCalls(book: PriceBook, file: string, { currency, json, csv }: Options): Promise<void> {
  const { reprice } = await import('../economics/price-book-quote.ts');
  const costs = (await readCalls(file)).map(({ call, where }) => {
    try {
      return { call, ...reprice(book, call, currency) };
    } catch (error) {
      throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
    }
  });
  if (json || csv) {
    const rows: Row[] = [];
    for (const { call, doubts, ...cost } of costs) {
      const { at, ...tokens } = call;
      rows.push({
        at: new Date(at).toISOString(),
        ...tokens,
        currency,
        ...costColumns(cost),
        doubts: doubts.join('; '),
      });
    }
    console.log(json ? rows.map((row) => JSON.stringify(row)).join('\n') : asCsv(rows));
    return;
  }
  const lines: Row[] = [];
  for (const model of new Set(costs.map(({ name }) => name))) {
    const some = costs.filter(({ name }) => name === model);
    lines.push({ model, calls: some.length, ...costColumns(total(some)) });
  }
  const doubts = [...new Set(costs.flatMap((cost) => cost.doubts))];
  console.log([asText(lines), '', inWords(currency, costColumns(total(costs))), ...doubts].join('\n'));
}

function total(costs: readonly Pick<Cost, 'least' | 'most'>[]): Pick<Cost, 'least' | 'most'> {
  return costs.reduce((sum, { least, most }) => ({ least: sum.least + least, most: sum.most + most }), {
    least: 0n,
    most: 0n,
  });
}

async function readCalls(file: string): Promise<{ call: Call; where: string }[]> {
  const { parseCall } = await import('../economics/price-book-quote.ts');
  return (await readFile(file, 'utf8')).split('\n').flatMap((line, i) => {
    if (line.trim() === '') return [];
    const where = `${file}, line ${i + 1}`;
    let json: unknown;
    try {
      json = JSON.parse(line);
    } catch (error) {
      throw new Error(`${where}: not JSON: ${(error as Error).message}`, { cause: error });
    }
    return [{ call: parseCall(json, where), where }];
  });
}

function rateColumns({ window, hit, miss, output }: TokenPrices & { readonly window: string | null }) {
  return {
    hours: window,
    'cache hit': hit === null ? null : priceText(hit),
    'cache miss': priceText(miss),
    output: priceText(output),
  };
}

function costColumns({ least, most }: Pick<Cost, 'least' | 'most'>): { least: string; most: string } {
  return { least: moneyText(least), most: moneyText(most) };
}

function inWords(currency: string, { least, most }: { least: string; most: string }): string {
  return least === most ? `exactly ${least} ${currency}` : `from ${least} to ${most} ${currency}`;
}
