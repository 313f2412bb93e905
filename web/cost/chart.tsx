/** A figure's chart: drawn anew when its numbers, the theme or the width change. */
import { useSignalEffect } from '@preact/signals';
import type { EChartsType } from 'echarts/core';
import { useEffect, useRef } from 'preact/hooks';
import { shownTheme } from '../style/theme.ts';
import { readStyle } from './chart-style.ts';
import { init } from './echarts.ts';
import type { Figure } from './figure.ts';

export function Chart({ figure }: { figure: Figure }) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<EChartsType>(null);
  const shown = useRef(figure);
  shown.current = figure;
  const draw = () => {
    // A theme may change, or a frame come, when the figure is gone.
    if (!place.current) return;
    // Series of an earlier figure must not stay where this one has fewer.
    chart.current?.setOption(shown.current.chart(readStyle(place.current)), {
      notMerge: false,
      replaceMerge: ['series'],
    });
  };
  useEffect(() => {
    const element = place.current!;
    chart.current = init(element, null, { renderer: 'svg' });
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    chart.current.setOption({ animation: !calm });
    const resized = new ResizeObserver(() => {
      chart.current?.resize();
      draw();
    });
    resized.observe(element);
    return () => {
      resized.disconnect();
      chart.current?.dispose();
    };
  }, []);
  useEffect(draw, [figure]);
  useSignalEffect(() => {
    shownTheme.value;
    // The theme is on the page only after its own effect.
    queueMicrotask(draw);
  });
  return <div ref={place} class="chart" role="img" aria-label={`${figure.title}: ${figure.says}`} />;
}
