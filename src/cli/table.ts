/** Tables for people, spreadsheets and machines: one list of rows, three ways to print it. */

import type { Cell, Row } from '../numerics/csv.ts';

export { asCsv, type Row } from '../numerics/csv.ts';

/** Columns by the keys of the first row; numbers to the right. */
export function asText(rows: readonly Row[]): string {
  const names = Object.keys(rows[0] ?? {});
  const cells = rows.map((row) => names.map((name) => shownCell(row[name] ?? null)));
  const widths = names.map((name, i) => Math.max(name.length, ...cells.map((line) => line[i]!.length)));
  const right = names.map((name) => rows.every((row) => typeof row[name] !== 'string' || /^[-–\d]/.test(row[name])));
  const line = (texts: readonly string[]) =>
    texts
      .map((text, i) => (right[i] ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [line(names), line(widths.map((width) => '─'.repeat(width))), ...cells.map(line)].join('\n');
}

function shownCell(cell: Cell): string {
  if (cell === null) return '–';
  if (typeof cell === 'string') return cell;
  return Number.isInteger(cell)
    ? cell.toLocaleString('en')
    : cell.toLocaleString('en', { maximumSignificantDigits: 4 });
}
