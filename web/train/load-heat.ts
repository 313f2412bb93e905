/** A heat map of expert loads: under their even share green, over it bronze. */
import { type ChartOption, type ColourOf, plainOption } from './chart.tsx';

export interface LoadHeat {
  readonly grid: { readonly left: number; readonly right: number; readonly top: number; readonly bottom: number };
  readonly columns: readonly string[];
  readonly rows: readonly string[];
  /** Beside `rows`, for those that are named. */
  readonly rowNames?: ReadonlyMap<number, string>;
  /** Loads as times their even share, by column and row. */
  readonly cells: readonly (readonly [column: number, row: number, load: number])[];
  /** Cells stand apart, as tiles. */
  readonly tiles?: boolean;
  /** What a cell says when it is pointed at. */
  readonly tell: (column: number, row: number) => string;
}

/** Three times and a third of the even share are the ends of the scale, in powers of two. */
const REACH = Math.log2(3);

export function loadHeat(colour: ColourOf, heat: LoadHeat): ChartOption {
  const { grid, columns, rows, rowNames, cells, tiles, tell } = heat;
  const plain = plainOption(colour);
  const axis = { type: 'category' as const, axisTick: { show: false }, axisLine: { show: false } };
  const axisLabel = { color: colour('--ink-faint'), fontSize: 11 };
  const inPowers = (load: number) => Math.max(-REACH, Math.min(REACH, Math.log2(Math.max(load, 0.01))));
  return {
    ...plain,
    grid,
    xAxis: { ...axis, data: [...columns], axisLabel: { ...axisLabel, hideOverlap: true } },
    yAxis: {
      ...axis,
      inverse: true,
      data: [...rows],
      axisLabel: rowNames
        ? {
            ...axisLabel,
            interval: (row: number) => rowNames.has(row),
            formatter: (_: string, row: number) => rowNames.get(row) ?? '',
          }
        : axisLabel,
    },
    visualMap: {
      type: 'continuous',
      show: false,
      min: -REACH,
      max: REACH,
      dimension: 2,
      inRange: { color: ['--load-least', '--load-less', '--load-mean', '--load-more', '--load-most'].map(colour) },
    },
    tooltip: {
      ...plain.tooltip,
      trigger: 'item',
      formatter: (params) =>
        tell(...((params as unknown as { value: [number, number] }).value.slice(0, 2) as [number, number])),
    },
    series: [
      {
        type: 'heatmap',
        progressiveThreshold: Number.POSITIVE_INFINITY,
        emphasis: { disabled: true },
        ...(tiles && { itemStyle: { borderColor: colour('--surface'), borderWidth: 2, borderRadius: 3 } }),
        data: cells.map(([column, row, load]) => [column, row, inPowers(load)]),
      },
    ],
  };
}
