/** What every figure of the page is: a chart, what it says in a sentence, its numbers, and how they come about. */
import type { EChartsCoreOption } from 'echarts/core';
import type { Row } from '../../src/numerics/csv.ts';
import type { ChartStyle } from './chart-style.ts';

export interface Figure {
  /** Also the name of exported files. */
  readonly id: string;
  readonly title: string;
  readonly says: string;
  readonly rows: readonly Row[];
  readonly workings: readonly Working[];
  readonly chart: (style: ChartStyle) => EChartsCoreOption;
}

/** A formula, and the same with the values put in. */
export interface Working {
  readonly what: string;
  readonly formula: string;
  readonly values: string;
  readonly result: string;
}

/** From `least` to `greatest` in equal factors. */
export function geometric(least: number, greatest: number, points: number): number[] {
  if (!(greatest > least)) return [least];
  return Array.from({ length: points }, (_, i) => least * (greatest / least) ** (i / (points - 1)));
}
