/** The load of every expert: one row a layer, one column an expert, over the last half minute that had work. */
import { signal } from '@preact/signals';
import { Chart } from '../train/chart.tsx';
import { type LoadHeat, loadHeat } from '../train/load-heat.ts';
import { events } from './engine-events.ts';

const SPANS = { recent: 'Last 30 s', all: 'Since the start' } as const;
const span = signal<keyof typeof SPANS>('recent');
const RECENT = 60;

export function ExpertHeat() {
  const layers = loads();
  if (layers.length === 0) return null;
  return (
    <section aria-labelledby="experts-title">
      <header class="section-head">
        <h2 id="experts-title">Expert loads</h2>
        <fieldset class="choice">
          <legend class="unseen">Over what time</legend>
          {(Object.keys(SPANS) as (keyof typeof SPANS)[]).map((key) => (
            <label key={key}>
              <input
                type="radio"
                name="span"
                checked={span.value === key}
                onChange={() => {
                  span.value = key;
                }}
              />
              <span>{SPANS[key]}</span>
            </label>
          ))}
        </fieldset>
      </header>
      <figure class="panel">
        <figcaption>
          <span class="panel-note">
            each row a layer, each column an expert; green under, bronze over its even share
          </span>
        </figcaption>
        <Chart
          label={described(layers)}
          height={layers.length * 26 + 40}
          option={(colour) => loadHeat(colour, heatOf(layers))}
        />
      </figure>
    </section>
  );
}

interface LayerLoads {
  readonly layer: string;
  /** Times the mean of the layer; null where nothing was routed. */
  readonly loads: readonly (number | null)[];
}

function loads(): LayerLoads[] {
  const all = events.value;
  const now = all.at(-1)!.expertLoads;
  const before = span.value === 'recent' ? all[Math.max(0, all.length - 1 - RECENT)]!.expertLoads : {};
  return Object.entries(now).map(([layer, tokens]) => {
    const since = tokens.map((count, expert) => count - (before[layer]?.[expert] ?? 0));
    const mean = since.reduce((a, b) => a + b, 0) / since.length;
    return { layer, loads: since.map((count) => (mean > 0 ? count / mean : null)) };
  });
}

function heatOf(layers: readonly LayerLoads[]): LoadHeat {
  return {
    grid: { left: 56, right: 14, top: 6, bottom: 26 },
    columns: layers[0]!.loads.map((_, expert) => String(expert)),
    rows: layers.map(({ layer }) => `layer ${layer}`),
    cells: layers.flatMap(({ loads }, row) =>
      loads.flatMap((load, expert) => (load === null ? [] : [[expert, row, load] as const])),
    ),
    tiles: true,
    tell: (expert, row) => {
      const { layer, loads } = layers[row]!;
      return `layer ${layer}, expert ${expert}: <b>${loads[expert]!.toFixed(2)}</b> of an even share`;
    },
  };
}

function described(layers: readonly LayerLoads[]): string {
  const each = layers.flatMap(({ layer, loads }) => loads.map((load, expert) => ({ layer, expert, load: load ?? 0 })));
  const most = each.reduce((a, b) => (b.load > a.load ? b : a));
  if (most.load === 0) return 'Expert loads: nothing was computed in this time.';
  return `Expert loads. The busiest is expert ${most.expert} of layer ${most.layer}, with ${most.load.toFixed(2)} times an even share.`;
}
