/** Numbers as people read them: 1.2 GiB, 671 B, 12 min. */

export function bytes(value: number): string {
  return scaled(value, 1024, ['bytes', 'KiB', 'MiB', 'GiB', 'TiB']);
}

export function count(value: number): string {
  return scaled(value, 1000, ['', 'thousand', 'million', 'billion', 'trillion']).trim();
}

export function duration(seconds: number): string {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return `${Math.round(seconds)} s`;
  return minutes < 90 ? `${minutes} min` : `${(minutes / 60).toFixed(1)} h`;
}

function scaled(value: number, step: number, units: readonly string[]): string {
  let unit = 0;
  let left = value;
  while (left >= step && unit < units.length - 1) {
    left /= step;
    unit++;
  }
  const digits = unit === 0 || left >= 100 ? 0 : left >= 10 ? 1 : 2;
  return `${left.toFixed(digits)} ${units[unit]}`;
}
