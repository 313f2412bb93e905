/** Numbers as the page writes them: three digits, a unit, no more. */

/** Three significant digits, thousands set apart. */
export function digits(value: number, significant = 3): string {
  if (value === 0) return '0';
  const size = Math.floor(Math.log10(Math.abs(value)));
  if (size < -4 || size >= 15)
    return value
      .toExponential(significant - 1)
      .replace('e-', ' × 10^−')
      .replace('e+', ' × 10^');
  return value.toLocaleString('en', { maximumFractionDigits: Math.max(0, significant - 1 - size) });
}

/** Cents where there are any, three digits of what is below a dollar. */
export function dollars(value: number): string {
  if (value >= 1e4) return `$${scaled(value, ['', 'k', ' M', ' bn'])}`;
  if (value >= 100) return `$${Math.round(value).toLocaleString('en')}`;
  if (value >= 1) return `$${value.toFixed(2)}`;
  return `$${value > 0 ? digits(value) : 0}`;
}

/** As `dollars`, for the axes of charts: no cents that are all noughts. */
export function dollarMark(value: number): string {
  return dollars(value).replace(/\.0+$/, '');
}

export function bytes(value: number): string {
  return scaled(value, [' B', ' KB', ' MB', ' GB', ' TB', ' PB']);
}

export function count(value: number): string {
  return scaled(value, ['', 'k', ' M', ' bn', ' tn']);
}

export function milliseconds(seconds: number): string {
  return `${digits(seconds * 1000)} ms`;
}

/** In steps of a thousand, as the published figures are. */
function scaled(value: number, units: readonly string[]): string {
  let left = value;
  let unit = 0;
  while (Math.abs(left) >= 999.5 && unit < units.length - 1) {
    left /= 1000;
    unit++;
  }
  return `${trimmed(left)}${units[unit]}`;
}

function trimmed(value: number): string {
  return Number(value.toPrecision(3)).toLocaleString('en', { maximumFractionDigits: 4 });
}
