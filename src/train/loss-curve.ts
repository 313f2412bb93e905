/** The loss of runs, drawn. */
import type { EChartsOption } from 'echarts';
import { replaceFile } from '../numerics/replace-file.ts';

/** What a curve needs of a step's metrics. */
export interface CurvePoint {
  readonly step: number;
  readonly loss: number;
  /** Held-out bits per byte, at the steps where it was measured. */
  readonly bitsPerByte?: number;
}

const WINDOW = 20;
export const PAPER = '#fffdf9';
export const GRID_LINE = '#ece6da';
export const CURVE_COLOURS = ['#8a4b2d', '#2f6f8f', '#5b7f3a', '#7a4f91'];

/** Writes an SVG of one colour a run: above the training loss (mean of 20 steps), below held-out bits per byte. */
export async function writeLossCurve(
  path: string,
  runs: Readonly<Record<string, readonly CurvePoint[]>>,
): Promise<void> {
  const names = Object.keys(runs);
  const last = Math.max(1, ...Object.values(runs).map((points) => points.at(-1)?.step ?? 0));
  const panel = (index: number, name: string) => ({
    x: {
      type: 'value' as const,
      gridIndex: index,
      max: last,
      splitLine: { show: false },
      ...(index === 0 ? {} : { name: 'step', nameLocation: 'middle' as const, nameGap: 28 }),
    },
    y: {
      type: 'value' as const,
      gridIndex: index,
      scale: true,
      name,
      nameTextStyle: { align: 'left' as const },
      splitLine: { lineStyle: { color: GRID_LINE } },
    },
  });
  const panels = [panel(0, 'training loss, nats per token'), panel(1, 'held out, bits per byte')];
  const line = (name: string, index: number, data: [number, number][], colour: string) => ({
    name,
    type: 'line' as const,
    xAxisIndex: index,
    yAxisIndex: index,
    showSymbol: index === 1,
    symbolSize: 5,
    color: colour,
    lineStyle: { width: 1.8 },
    data,
  });
  const svg = await svgOf(860, 620, {
    animation: false,
    backgroundColor: PAPER,
    textStyle: { fontFamily: 'system-ui, sans-serif', fontSize: 13 },
    legend: { top: 10, data: names, icon: 'roundRect', itemHeight: 4 },
    grid: [
      { left: 60, right: 32, top: 72, height: 270 },
      { left: 60, right: 32, top: 396, height: 164 },
    ],
    xAxis: panels.map(({ x }) => x),
    yAxis: panels.map(({ y }) => y),
    series: names.flatMap((name, i) => {
      const points = runs[name]!;
      const colour = CURVE_COLOURS[i % CURVE_COLOURS.length]!;
      const held = points.filter(({ bitsPerByte }) => bitsPerByte !== undefined);
      return [
        line(name, 0, smoothed(points), colour),
        line(
          name,
          1,
          held.map(({ step, bitsPerByte }) => [step, bitsPerByte!]),
          colour,
        ),
      ];
    }),
  });
  await replaceFile(path, (file) => file.writeFile(svg));
}

export async function svgOf(width: number, height: number, option: EChartsOption): Promise<string> {
  const echarts = await import('echarts');
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width, height });
  chart.setOption(option);
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

function smoothed(points: readonly CurvePoint[]): [number, number][] {
  return points.map(({ step }, i) => {
    const window = points.slice(Math.max(0, i - WINDOW + 1), i + 1);
    return [step, window.reduce((sum, { loss }) => sum + loss, 0) / window.length];
  });
}
