/** The load of every expert over time: one band a layer, one row an expert, under its share green, above it bronze. */
import { Chart } from './chart.tsx';
import { whole } from './figures.ts';
import { type LoadHeat, loadHeat } from './load-heat.ts';
import type { Step } from './run-data.ts';
import { type ShownRun, shownRuns } from './runs.ts';

const MOST_COLUMNS = 160;

export function ExpertLoads() {
  const maps = shownRuns.value.map((run) => ({ run, map: loadMap(run.steps) })).filter(({ map }) => map !== null);
  if (maps.length === 0) return null;
  return (
    <section class="loads" aria-labelledby="loads-title">
      <header class="section-head">
        <h2 id="loads-title">Expert loads</h2>
        <p class="scale" aria-hidden="true">
          <span>⅓ of the mean</span>
          <i />
          <span>3 times</span>
        </p>
      </header>
      {maps.map(({ run, map }) => (
        <figure class="panel wide" key={run.name}>
          <figcaption>
            <span class="panel-title">{run.name}</span>{' '}
            <span class="panel-note">each row an expert, each band a layer, over steps</span>
          </figcaption>
          <Chart
            label={described(run, map!)}
            height={heightOf(map!)}
            option={(colour) => loadHeat(colour, heatOf(map!))}
          />
        </figure>
      ))}
    </section>
  );
}

interface LoadMap {
  /** Steps at which the columns begin. */
  readonly from: readonly number[];
  /** Rows from above: an expert of a layer, or null for the gap between two layers. */
  readonly rows: readonly ({ readonly layer: string; readonly expert: number } | null)[];
  /** Percent of the mean by column and row. */
  readonly loads: readonly (readonly (number | null)[])[];
}

function loadMap(steps: readonly Step[]): LoadMap | null {
  const loaded = steps.filter(({ expertLoads }) => expertLoads);
  const last = loaded.at(-1)?.expertLoads;
  if (!last) return null;
  const rows = Object.entries(last).flatMap(([layer, loads], i) => [
    ...(i > 0 ? [null] : []),
    ...loads.map((_, expert) => ({ layer, expert })),
  ]);
  const size = Math.ceil(loaded.length / MOST_COLUMNS);
  const columns = Array.from({ length: Math.ceil(loaded.length / size) }, (_, i) =>
    loaded.slice(i * size, (i + 1) * size),
  );
  const mean = (column: readonly Step[], layer: string, expert: number) =>
    column.reduce((sum, { expertLoads }) => sum + (expertLoads?.[layer]?.[expert] ?? 0), 0) / column.length;
  return {
    from: columns.map(([first]) => first!.step),
    rows,
    loads: columns.map((column) => rows.map((row) => row && mean(column, row.layer, row.expert))),
  };
}

const heightOf = ({ rows }: LoadMap) => Math.min(560, Math.max(160, rows.length * 5)) + 30;

function heatOf({ from, rows, loads }: LoadMap): LoadHeat {
  const layers = [...new Set(rows.flatMap((row) => row?.layer ?? []))];
  const middleOf = (layer: string) => {
    const its = rows.flatMap((row, i) => (row?.layer === layer ? [i] : []));
    return its[Math.floor(its.length / 2)]!;
  };
  return {
    grid: { left: 56, right: 18, top: 10, bottom: 24 },
    columns: from.map(whole),
    rows: rows.map((_, i) => String(i)),
    rowNames: new Map(layers.map((layer) => [middleOf(layer), `layer ${layer}`])),
    cells: loads.flatMap((column, x) =>
      column.flatMap((percent, y) => (percent === null ? [] : [[x, y, percent / 100] as const])),
    ),
    tell: (x, y) => {
      const row = rows[y];
      return row
        ? `layer ${row.layer}, expert ${row.expert}<br>from step ${from[x]}: <b>${(loads[x]![y]! / 100).toFixed(2)}</b> of the mean`
        : '';
    },
  };
}

function described({ name }: ShownRun, { loads, rows }: LoadMap): string {
  const last = loads.at(-1)!;
  const most = last.reduce<number>((best, load, i) => ((load ?? 0) > (last[best] ?? 0) ? i : best), 0);
  const row = rows[most]!;
  return `Expert loads of ${name} over time. At the end the busiest is expert ${row.expert} of layer ${row.layer}, with ${(last[most]! / 100).toFixed(2)} times the mean.`;
}
