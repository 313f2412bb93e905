/** The loss of runs, drawn. */
import { replaceFile } from '../numerics/replace-file.ts';

/** What a curve needs of a step's metrics. */
export interface CurvePoint {
  readonly step: number;
  readonly loss: number;
  /** Held-out bits per byte, at the steps where it was measured. */
  readonly bitsPerByte?: number;
}

const WINDOW = 20;

/** Writes an SVG: training loss (mean of 20 steps) and, on the right axis, held-out bits per byte, one colour a run. */
export async function writeLossCurve(
  path: string,
  runs: Readonly<Record<string, readonly CurvePoint[]>>,
): Promise<void> {
  const echarts = await import('echarts');
  const chart = echarts.init(null, null, { renderer: 'svg', ssr: true, width: 860, height: 460 });
  const colours = ['#8a4b2d', '#2f6f8f', '#5b7f3a', '#7a4f91'];
  const names = Object.keys(runs);
  chart.setOption({
    animation: false,
    backgroundColor: '#fffdf9',
    color: colours,
    textStyle: { fontFamily: 'system-ui, sans-serif', fontSize: 13 },
    legend: { top: 12, data: names.flatMap((name) => [name, `${name}, held out`]) },
    grid: { left: 64, right: 72, top: 56, bottom: 52 },
    xAxis: { type: 'value', name: 'step', nameLocation: 'middle', nameGap: 30, splitLine: { show: false } },
    yAxis: [
      { type: 'value', name: 'nats per token', scale: true, splitLine: { lineStyle: { color: '#ece6da' } } },
      { type: 'value', name: 'bits per byte', scale: true, splitLine: { show: false } },
    ],
    series: names.flatMap((name, i) => {
      const points = runs[name]!;
      const held = points.filter(({ bitsPerByte }) => bitsPerByte !== undefined);
      return [
        {
          name,
          type: 'line' as const,
          showSymbol: false,
          lineStyle: { width: 1.8 },
          color: colours[i % colours.length]!,
          data: smoothed(points),
        },
        {
          name: `${name}, held out`,
          type: 'line' as const,
          yAxisIndex: 1,
          symbolSize: 6,
          color: colours[i % colours.length]!,
          lineStyle: { width: 1.4, type: 'dashed' as const },
          data: held.map(({ step, bitsPerByte }) => [step, bitsPerByte!]),
        },
      ];
    }),
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  await replaceFile(path, async (file) => {
    await file.writeFile(svg);
  });
}

function smoothed(points: readonly CurvePoint[]): [number, number][] {
  return points.map(({ step }, i) => {
    const window = points.slice(Math.max(0, i - WINDOW + 1), i + 1);
    return [step, window.reduce((sum, { loss }) => sum + loss, 0) / window.length];
  });
}
