/** The batch curve, drawn: throughput under its bounds, and where the time of a step goes. */
import type { Rate } from '../src/engine/measure.ts';
import { replaceFile } from '../src/numerics/replace-file.ts';
import { CURVE_COLOURS, GRID_LINE, PAPER, svgOf } from '../src/train/loss-curve.ts';

export type CurvePart = 'experts' | 'other products' | 'attention' | 'rest';
const PARTS: readonly CurvePart[] = ['experts', 'other products', 'attention', 'rest'];
const PART_COLOURS = ['#8a4b2d', '#c98f5f', '#2f6f8f', '#b8b0a0'];

export interface CurveRow {
  readonly batch: number;
  /** Of all sequences together. */
  readonly tokensPerSecond: Rate;
  /** The most that each resource would allow if nothing else took time, and all of memory's work together. */
  readonly bounds: { readonly weights: number; readonly memory: number; readonly arithmetic: number };
  readonly binds: string;
  readonly shareOfBound: number;
  /** Of one step: bytes of weights and of cache, operations, and measured seconds by part. */
  readonly step: {
    readonly weightBytes: number;
    readonly cacheBytes: number;
    readonly flops: number;
    readonly seconds: Readonly<Record<CurvePart, number>>;
  };
}

/** Writes an SVG: above tokens a second and their bounds, both axes logarithmic; below milliseconds of a step by part. */
export async function writeBatchCurve(path: string, title: string, rows: readonly CurveRow[]): Promise<void> {
  const batches = rows.map(({ batch }) => String(batch));
  const bound = (name: string, value: (row: CurveRow) => number, colour: string) => ({
    name,
    type: 'line' as const,
    symbol: 'none',
    color: colour,
    lineStyle: { width: 1.4, type: 'dashed' as const },
    data: rows.map(value),
  });
  const bars = PARTS.map((part, i) => ({
    name: part,
    type: 'bar' as const,
    stack: 'step',
    xAxisIndex: 1,
    yAxisIndex: 1,
    barWidth: '46%',
    color: PART_COLOURS[i]!,
    data: rows.map(({ step }) => step.seconds[part] * 1000),
  }));
  const lines = [
    {
      name: 'measured',
      type: 'line' as const,
      symbolSize: 6,
      color: CURVE_COLOURS[0]!,
      lineStyle: { width: 2.4 },
      data: rows.map(({ tokensPerSecond }) => tokensPerSecond.median),
    },
    bound('bound: weights touched', ({ bounds }) => bounds.weights, CURVE_COLOURS[2]!),
    bound('bound: weights and cache', ({ bounds }) => bounds.memory, CURVE_COLOURS[1]!),
    bound('bound: arithmetic', ({ bounds }) => bounds.arithmetic, CURVE_COLOURS[3]!),
  ];
  const x = (index: number) => ({
    type: 'category' as const,
    gridIndex: index,
    data: batches,
    ...(index === 0 ? {} : { name: 'sequences together', nameLocation: 'middle' as const, nameGap: 28 }),
  });
  const y = (index: number, name: string) => ({
    gridIndex: index,
    name,
    nameTextStyle: { align: 'left' as const },
    splitLine: { lineStyle: { color: GRID_LINE } },
  });
  const legend = { icon: 'roundRect', itemHeight: 4, itemGap: 34, left: 60 };
  const svg = await svgOf(860, 660, {
    animation: false,
    backgroundColor: PAPER,
    textStyle: { fontFamily: 'system-ui, sans-serif', fontSize: 13 },
    title: { text: title, left: 60, top: 8, textStyle: { fontSize: 14, fontWeight: 600 } },
    legend: [
      { ...legend, top: 34, data: lines.map(({ name }) => name) },
      { ...legend, top: 400, data: [...PARTS] },
    ],
    grid: [
      { left: 60, right: 32, top: 96, height: 266 },
      { left: 60, right: 32, top: 462, height: 140 },
    ],
    xAxis: [x(0), x(1)],
    yAxis: [
      { type: 'log', ...y(0, 'tokens a second') },
      { type: 'value', ...y(1, 'milliseconds of a step') },
    ],
    series: [...lines, ...bars],
  });
  await replaceFile(path, (file) => file.writeFile(svg));
}
