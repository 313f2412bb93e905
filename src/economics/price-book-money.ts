/**
 * Money without rounding: whole numbers of 10^-15 of a currency. A price for a million tokens with up to nine decimals,
 * times a number of tokens, is such a number exactly.
 */

/** Whole 10^-15 of a currency. */
export type Money = bigint;

/** Whole 10^-9 of a currency, for a million tokens. */
export type TokenPrice = bigint;

export const PRICE_DECIMALS = 9;
const MONEY_DECIMALS = 15;

/** What so many tokens cost: 10^-9 for a million tokens is 10^-15 for one. */
export function costOf(tokens: number, price: TokenPrice): Money {
  return BigInt(tokens) * price;
}

/** @param text digits with at most nine decimals */
export function parsePrice(text: string): TokenPrice {
  const [whole, fraction = ''] = text.split('.') as [string, string?];
  return BigInt(whole + fraction.padEnd(PRICE_DECIMALS, '0'));
}

/** Exact, without trailing zeros. */
export function moneyText(amount: Money): string {
  return decimalText(amount, MONEY_DECIMALS);
}

export function priceText(price: TokenPrice): string {
  return decimalText(price, PRICE_DECIMALS);
}

function decimalText(value: bigint, decimals: number): string {
  const digits = value.toString().padStart(decimals + 1, '0');
  const fraction = digits.slice(-decimals).replace(/0+$/, '');
  return digits.slice(0, -decimals) + (fraction && `.${fraction}`);
}
