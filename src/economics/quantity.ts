/**
 * Numbers that know their unit: the compiler refuses to add bytes to seconds or to divide FLOPs by a bandwidth.
 * At run time they are plain numbers.
 */

declare const unit: unique symbol;

/** A number in the unit `U`; a rate is written `A/B`. */
export type Quantity<U extends string> = number & { readonly [unit]: U };

export type Bytes = Quantity<'B'>;
export type Flop = Quantity<'FLOP'>;
export type Seconds = Quantity<'s'>;
export type Hours = Quantity<'h'>;
export type Tokens = Quantity<'token'>;
export type Usd = Quantity<'USD'>;
export type BytesPerSecond = Quantity<'B/s'>;
export type FlopPerSecond = Quantity<'FLOP/s'>;
export type TokensPerSecond = Quantity<'token/s'>;
export type BytesPerToken = Quantity<'B/token'>;
export type FlopPerToken = Quantity<'FLOP/token'>;
export type UsdPerHour = Quantity<'USD/h'>;
/** Dollars for a million tokens, as price pages print it. */
export type UsdPerMillion = Quantity<'USD/Mtoken'>;

export const bytes = (value: number) => value as Bytes;
export const flop = (value: number) => value as Flop;
export const seconds = (value: number) => value as Seconds;
export const hours = (value: number) => value as Hours;
export const tokens = (value: number) => value as Tokens;
export const usd = (value: number) => value as Usd;
export const bytesPerSecond = (value: number) => value as BytesPerSecond;
export const flopPerSecond = (value: number) => value as FlopPerSecond;
export const tokensPerSecond = (value: number) => value as TokensPerSecond;
export const bytesPerToken = (value: number) => value as BytesPerToken;
export const flopPerToken = (value: number) => value as FlopPerToken;
export const usdPerHour = (value: number) => value as UsdPerHour;
export const usdPerMillion = (value: number) => value as UsdPerMillion;

/** How long an amount takes at a rate: bytes at bytes per second are seconds. */
export function over<A extends string, B extends string>(
  amount: Quantity<A>,
  rate: Quantity<`${A}/${B}`>,
): Quantity<B> {
  return (amount / rate) as Quantity<B>;
}

/** What a rate comes to: dollars per hour for so many hours. */
export function of<A extends string, B extends string>(rate: Quantity<`${A}/${B}`>, amount: Quantity<B>): Quantity<A> {
  return (rate * amount) as Quantity<A>;
}

export function times<U extends string>(quantity: Quantity<U>, factor: number): Quantity<U> {
  return (quantity * factor) as Quantity<U>;
}

export function plus<U extends string>(first: Quantity<U>, ...others: readonly NoInfer<Quantity<U>>[]): Quantity<U> {
  let sum: number = first;
  for (const other of others) sum += other;
  return sum as Quantity<U>;
}

const SECONDS_PER_HOUR = 3600;

export function inHours(time: Seconds): Hours {
  return hours(time / SECONDS_PER_HOUR);
}

/** What a million tokens cost at a speed, for something rented by the hour. */
export function costPerMillion(price: UsdPerHour, speed: TokensPerSecond): UsdPerMillion {
  return usdPerMillion((price / SECONDS_PER_HOUR / speed) * 1e6);
}
