/** A figure as a file: its chart as SVG or PNG, with title and sentence, or its numbers as CSV. */
import { asCsv } from '../../src/numerics/csv.ts';
import { readStyle } from './chart-style.ts';
import { init } from './echarts.ts';
import type { Figure } from './figure.ts';

export type Format = 'PNG' | 'SVG' | 'CSV';

const WIDTH = 960;
const HEIGHT = 600;
const HEAD = 96;
/** Pixels of a PNG for each of the drawing. */
const SCALE = 2;

/** @param about whose figure it is, written at its foot */
export async function download(figure: Figure, format: Format, about: string): Promise<void> {
  const parts = {
    CSV: async () => new Blob([`${asCsv(figure.rows)}\n`], { type: 'text/csv' }),
    SVG: async () => new Blob([drawing(figure, about)], { type: 'image/svg+xml' }),
    PNG: () => picture(drawing(figure, about)),
  };
  const url = URL.createObjectURL(await parts[format]());
  const link = document.createElement('a');
  link.href = url;
  link.download = `farthing-${figure.id}.${format.toLowerCase()}`;
  link.click();
  URL.revokeObjectURL(url);
}

function drawing(figure: Figure, about: string): string {
  const style = { ...readStyle(document.body), narrow: false };
  const chart = init(null, null, { renderer: 'svg', ssr: true, width: WIDTH, height: HEIGHT });
  const option = figure.chart(style) as { grid: { top: number; bottom: number } };
  const text = { color: style.soft, fontSize: 14, width: WIDTH - 48, overflow: 'break', lineHeight: 19 };
  chart.setOption({
    ...option,
    animation: false,
    backgroundColor: style.surface,
    title: [
      {
        left: 20,
        top: 16,
        text: figure.title,
        subtext: figure.says,
        itemGap: 8,
        textStyle: { color: style.ink, fontSize: 22, fontWeight: 'normal' },
        subtextStyle: text,
      },
      { left: 20, bottom: 10, text: about, textStyle: { ...text, fontSize: 12, fontWeight: 'normal' } },
    ],
    grid: { ...option.grid, left: 24, top: option.grid.top + HEAD, bottom: option.grid.bottom + 36 },
  });
  const svg = chart.renderToSVGString();
  chart.dispose();
  return svg;
}

async function picture(svg: string): Promise<Blob> {
  const image = new Image();
  image.src = URL.createObjectURL(new Blob([svg], { type: 'image/svg+xml' }));
  await image.decode();
  URL.revokeObjectURL(image.src);
  const canvas = document.createElement('canvas');
  canvas.width = WIDTH * SCALE;
  canvas.height = HEIGHT * SCALE;
  canvas.getContext('2d')!.drawImage(image, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error('the browser made no PNG'))), 'image/png');
  });
}
