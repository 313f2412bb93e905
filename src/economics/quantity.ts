/**
 * Numbers that know their unit: the compiler refuses to add bytes to seconds or to divide FLOPs by a bandwidth.
 * At run time they are plain numbers.
 */

declare const unit: unique symbol;

/** A number in the unit `U`; a rate is written `A/B`. */
type Quantity<U extends string> = number & { readonly [unit]: U };

export type Bytes = Quantity<'B'>;
export type BytesPerToken = Quantity<'B/token'>;
export type FlopPerToken = Quantity<'FLOP/token'>;

export const bytes = (value: number) => value as Bytes;
export const bytesPerToken = (value: number) => value as BytesPerToken;
export const flopPerToken = (value: number) => value as FlopPerToken;
