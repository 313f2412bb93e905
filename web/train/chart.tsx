/** A chart in the colours of the page: redrawn when its option, its width or the theme changes. */
import { useSignalEffect } from '@preact/signals';
import { HeatmapChart, type HeatmapSeriesOption, LineChart, type LineSeriesOption } from 'echarts/charts';
import {
  GridComponent,
  type GridComponentOption,
  TooltipComponent,
  type TooltipComponentOption,
  type VisualMapComponentOption,
  VisualMapContinuousComponent,
} from 'echarts/components';
import { type ComposeOption, type EChartsType, init, use } from 'echarts/core';
import { CanvasRenderer } from 'echarts/renderers';
import { useEffect, useRef } from 'preact/hooks';
import { shownTheme } from '../style/theme.ts';

use([LineChart, HeatmapChart, GridComponent, TooltipComponent, VisualMapContinuousComponent, CanvasRenderer]);

export type ChartOption = ComposeOption<
  LineSeriesOption | HeatmapSeriesOption | GridComponentOption | TooltipComponentOption | VisualMapComponentOption
>;

/** Value of a colour token (`--ink`) in the theme on screen. */
export type ColourOf = (token: string) => string;

/**
 * @param label what the chart says, for who does not see it
 * @param option drawn anew at each rendering of the component
 */
export function Chart({
  label,
  height,
  option,
}: {
  label: string;
  height: number;
  option: (colour: ColourOf) => ChartOption;
}) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<EChartsType | null>(null);
  const draw = () => chart.current?.setOption(option(colourIn(place.current!)), { replaceMerge: ['series'] });
  const latest = useRef(draw);
  latest.current = draw;
  useEffect(() => {
    const made = init(place.current!);
    chart.current = made;
    const resized = new ResizeObserver(() => made.resize());
    resized.observe(place.current!);
    return () => {
      resized.disconnect();
      made.dispose();
      chart.current = null;
    };
  }, []);
  useEffect(draw);
  useSignalEffect(() => {
    shownTheme.value;
    // once the page itself has the theme
    queueMicrotask(() => latest.current());
  });
  return <div ref={place} class="chart" role="img" aria-label={label} style={{ blockSize: `${height}px` }} />;
}

/** Canvas knows no custom properties: an element tells what a token comes to. */
function colourIn(place: HTMLElement): ColourOf {
  const probe = document.createElement('span');
  return (token) => {
    place.append(probe);
    probe.style.color = `var(${token})`;
    const { color } = getComputedStyle(probe);
    probe.remove();
    return color;
  };
}

/** What all charts share. */
export function plainOption(colour: ColourOf): ChartOption & { readonly tooltip: TooltipComponentOption } {
  return {
    animation: false,
    textStyle: { fontFamily: getComputedStyle(document.body).fontFamily, color: colour('--ink-soft') },
    tooltip: {
      backgroundColor: colour('--raised'),
      borderColor: colour('--rule-strong'),
      borderWidth: 1,
      padding: [6, 10],
      textStyle: { color: colour('--ink'), fontSize: 12 },
      confine: true,
      transitionDuration: 0,
    },
  };
}
