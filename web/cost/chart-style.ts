/** How charts look: the colours of the page's theme, hairlines, one type size, labels at the lines themselves. */
import type { EChartsCoreOption } from 'echarts/core';

export interface ChartStyle {
  readonly ink: string;
  readonly soft: string;
  readonly faint: string;
  readonly rule: string;
  readonly strong: string;
  readonly surface: string;
  readonly raised: string;
  readonly wash: string;
  /** Bronze, patina, slate and plum; the first is what the scenario has. */
  readonly series: readonly [string, string, string, string];
  readonly font: string;
  /** Whether there is room for a phone's width only. */
  readonly narrow: boolean;
}

/** The colours that the page's tokens come to in the theme on screen. */
export function readStyle(element: HTMLElement): ChartStyle {
  const colour = (token: string) => {
    // A new element each time: an old one would be on its way from the last colour to this one.
    const probe = document.createElement('i');
    probe.style.color = `var(--${token})`;
    element.append(probe);
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };
  return {
    ink: colour('ink'),
    soft: colour('ink-soft'),
    faint: colour('ink-faint'),
    rule: colour('rule'),
    strong: colour('rule-strong'),
    surface: colour('surface'),
    raised: colour('raised'),
    wash: colour('bronze-wash'),
    series: [colour('bronze'), colour('patina'), colour('slate'), colour('plum')],
    // Double quotes would end the attribute in an exported SVG.
    font: getComputedStyle(element).fontFamily.replaceAll('"', "'"),
    narrow: element.clientWidth < 480,
  };
}

export function base(style: ChartStyle): EChartsCoreOption {
  return {
    animationDuration: 220,
    animationDurationUpdate: 160,
    animationEasing: 'cubicOut',
    textStyle: { fontFamily: style.font, color: style.soft, fontSize: 12 },
    grid: { left: 8, right: 20, top: 34, bottom: 30, containLabel: true },
    tooltip: {
      trigger: 'axis',
      confine: true,
      backgroundColor: style.raised,
      borderColor: style.strong,
      borderWidth: 1,
      padding: [8, 12],
      textStyle: { color: style.ink, fontSize: 12, fontFamily: style.font },
      axisPointer: { lineStyle: { color: style.strong, type: [2, 3] } },
      extraCssText: 'box-shadow: none; border-radius: 8px;',
    },
  };
}

export interface AxisOptions {
  readonly name: string;
  readonly type?: 'log' | 'value' | 'category';
  readonly format?: (value: number) => string;
  readonly min?: number;
  readonly max?: number;
}

export function xAxis(style: ChartStyle, { name, type = 'log', format = String, min, max }: AxisOptions) {
  return {
    type,
    name,
    nameLocation: 'middle',
    nameGap: 28,
    nameTextStyle: { color: style.soft },
    min,
    max,
    axisLine: { lineStyle: { color: style.strong }, onZero: false },
    axisTick: { lineStyle: { color: style.strong } },
    axisLabel: { color: style.soft, formatter: format, hideOverlap: true, showMaxLabel: type === 'log' },
    minorTick: { show: false },
    splitLine: { show: false },
  };
}

/** The name stands above the axis, to be read without turning the head. */
export function yAxis(style: ChartStyle, { name, type = 'log', format = String, min, max }: AxisOptions) {
  return {
    type,
    name,
    nameLocation: 'end',
    nameGap: 12,
    nameTextStyle: { color: style.soft, align: 'left', padding: [0, 0, 0, -36] },
    min,
    max,
    axisLine: { show: false },
    axisTick: { show: false },
    axisLabel: { color: style.soft, formatter: format, hideOverlap: true, showMaxLabel: type === 'log' },
    splitLine: { lineStyle: { color: style.rule } },
  };
}

/** A line with its name at its end. */
export function line(
  style: ChartStyle,
  index: 0 | 1 | 2 | 3,
  name: string,
  data: readonly (readonly [number, number])[],
) {
  const colour = style.series[index];
  return {
    type: 'line',
    name,
    data,
    symbol: 'circle',
    symbolSize: 6,
    showSymbol: false,
    lineStyle: { color: colour, width: index === 0 ? 2.5 : 1.75 },
    itemStyle: { color: colour },
    emphasis: { disabled: true },
    endLabel: { show: name !== '', formatter: name, color: colour, offset: [2, 0] },
    labelLayout: { moveOverlap: 'shiftY' },
  };
}

/** A mark on the spot where the scenario stands. */
export function here(style: ChartStyle, label: string, x: number, y: number, position = 'top') {
  return {
    type: 'scatter',
    name: label,
    data: [[x, y]],
    symbolSize: 13,
    z: 5,
    itemStyle: { color: style.series[0], borderColor: style.surface, borderWidth: 2.5 },
    label: { show: true, position, distance: 8, formatter: label, color: style.ink, fontWeight: 600, fontSize: 12 },
    emphasis: { disabled: true },
    tooltip: { show: false },
  };
}

/** Vertical or horizontal lines with a word each. */
export function rules(
  style: ChartStyle,
  at: readonly {
    readonly xAxis?: number;
    readonly yAxis?: number;
    readonly label: string;
    /** The word stands at the foot of the line, not at its head. */
    readonly low?: boolean;
    /** And after it, not before. */
    readonly after?: boolean;
  }[],
) {
  return {
    silent: true,
    symbol: 'none',
    animation: false,
    lineStyle: { color: style.strong, type: [4, 4], width: 1 },
    label: { color: style.soft, fontSize: 11.5 },
    data: at.map(({ label, low, after, ...where }) => ({
      ...where,
      label: {
        formatter: label,
        position: where.xAxis === undefined ? 'insideMiddleTop' : low ? 'insideStart' : 'insideEnd',
        rotate: 0,
        align: where.xAxis === undefined ? 'center' : after ? 'left' : 'right',
        padding: where.xAxis === undefined ? 0 : [0, 6, low ? 10 : 0, 6],
      },
    })),
  };
}
