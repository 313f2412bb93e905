/** Rows for a spreadsheet, as RFC 4180 has them. */

export type Cell = string | number | null;
export type Row = Readonly<Record<string, Cell>>;

/** Columns by the keys of the first row; numbers with all their digits, nothing for null. */
export function asCsv(rows: readonly Row[]): string {
  const quoted = (text: string) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const names = Object.keys(rows[0] ?? {});
  return [names, ...rows.map((row) => names.map((name) => String(row[name] ?? '')))]
    .map((cells) => cells.map(quoted).join(','))
    .join('\n');
}
