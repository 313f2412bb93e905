/** The pictures of an ablation, as SVG. */
import type { EChartsOption } from 'echarts';
import type { VariantResult } from './ablation.ts';
import type { Comparison } from './ablation-variants.ts';
import { CURVE_COLOURS, GRID_LINE, PAPER, svgOf } from './loss-curve.ts';

const mean = (values: readonly number[]) => values.reduce((a, b) => a + b, 0) / values.length;

/** One row a variant: a dot for each seed, a bar at their mean. */
export function lossPicture(variants: readonly string[], results: ReadonlyMap<string, VariantResult>): Promise<string> {
  const shown = variants.map((name) => results.get(name)!);
  return svgOf(720, 84 + 38 * shown.length, {
    ...plain({ left: 150, right: 32, top: 16, bottom: 48 }),
    xAxis: valueAxis('held-out bits per byte'),
    yAxis: {
      type: 'category',
      inverse: true,
      data: [...variants],
      axisTick: { show: false },
      axisLine: { show: false },
    },
    series: [
      {
        type: 'scatter',
        symbolSize: 10,
        data: shown.flatMap(({ seeds }, row) =>
          seeds.map(({ bitsPerByte }) => ({
            value: [bitsPerByte, row],
            itemStyle: { color: CURVE_COLOURS[row % CURVE_COLOURS.length]!, opacity: 0.65 },
          })),
        ),
      },
      {
        type: 'scatter',
        symbol: 'rect',
        symbolSize: [3, 24],
        data: shown.map(({ seeds }, row) => ({
          value: [mean(seeds.map(({ bitsPerByte }) => bitsPerByte)), row],
          itemStyle: { color: CURVE_COLOURS[row % CURVE_COLOURS.length]! },
        })),
      },
    ],
  });
}

/** Held-out loss over what a token keeps in the cache. */
export function cachePicture(
  variants: readonly string[],
  results: ReadonlyMap<string, VariantResult>,
): Promise<string> {
  const points = variants.map((name) => {
    const { seeds, cacheBytesPerToken } = results.get(name)!;
    return { name, bytes: cacheBytesPerToken, losses: seeds.map(({ bitsPerByte }) => bitsPerByte) };
  });
  return svgOf(720, 380, {
    ...plain({ left: 64, right: 72, top: 40, bottom: 52 }),
    xAxis: { ...valueAxis('cache, bytes a token'), type: 'log', logBase: 2 },
    yAxis: { ...valueAxis('held-out bits per byte'), ...ABOVE },
    series: points.flatMap(({ name, bytes, losses }, i) => {
      const color = CURVE_COLOURS[i % CURVE_COLOURS.length]!;
      return [
        {
          type: 'scatter' as const,
          symbolSize: 9,
          itemStyle: { color, opacity: 0.5 },
          data: losses.map((loss) => [bytes, loss]),
        },
        {
          type: 'scatter' as const,
          symbol: 'rect',
          symbolSize: [26, 3],
          itemStyle: { color },
          data: [[bytes, mean(losses)]],
          label: { show: true, position: 'right' as const, formatter: name, color },
        },
      ];
    }),
  });
}

/** The busiest expert over the steps: of each variant the mean over its seeds. */
export function balancePicture(
  variants: readonly string[],
  results: ReadonlyMap<string, VariantResult>,
): Promise<string> {
  return svgOf(720, 340, {
    ...plain({ left: 56, right: 24, top: 56, bottom: 52 }),
    legend: { top: 10, data: [...variants], icon: 'roundRect', itemHeight: 4, itemGap: 36 },
    xAxis: valueAxis('step'),
    yAxis: { ...valueAxis('busiest expert over the mean'), ...ABOVE, min: 1 },
    series: variants.map((name, i) => {
      const runs = results.get(name)!.seeds.map(({ metrics }) => metrics);
      return {
        name,
        type: 'line' as const,
        showSymbol: false,
        color: CURVE_COLOURS[i % CURVE_COLOURS.length]!,
        lineStyle: { width: 1.8 },
        data: runs[0]!.map(({ step }, at) => [step, mean(runs.map((run) => run[at]!.imbalance ?? 1))]),
      };
    }),
  });
}

/** Whether the variants differ in what a picture of balance shows. */
export const isAboutBalance = ({ name }: Comparison) => name === 'balancing';
export const isAboutCache = ({ name }: Comparison) => name === 'attention';

const plain = (grid: { left: number; right: number; top: number; bottom: number }): EChartsOption => ({
  animation: false,
  backgroundColor: PAPER,
  textStyle: { fontFamily: 'system-ui, sans-serif', fontSize: 13 },
  grid,
});

const valueAxis = (name: string) => ({
  type: 'value' as const,
  scale: true,
  name,
  nameLocation: 'middle' as const,
  nameGap: 30,
  nameTextStyle: { align: 'center' as const },
  splitLine: { lineStyle: { color: GRID_LINE } },
});

/** The name of a vertical axis above it, from its left end on. */
const ABOVE = { nameLocation: 'end' as const, nameGap: 14, nameTextStyle: { align: 'left' as const } };
