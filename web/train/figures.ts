/** Numbers as they stand on the page. */

const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 3 });

export const whole = (value: number) => Math.round(value).toLocaleString('en');
export const short = (value: number) => compact.format(value);

/** Small numbers keep their digits: 3.0e-4. */
export const significant = (value: number) =>
  value !== 0 && Math.abs(value) < 0.01 ? value.toExponential(1) : Number(value.toPrecision(4)).toLocaleString('en');

export function duration(seconds: number): string {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = seconds / 60;
  return minutes < 90 ? `${Math.round(minutes)} min` : `${(minutes / 60).toFixed(1)} h`;
}
