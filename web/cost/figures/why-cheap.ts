/** From a dense multi-head model of the same size in BF16 to the scenario, one technique after the other. */
import { countParameters } from '../../../src/economics/counts.ts';
import type { Technique } from '../../../src/economics/explanation.ts';
import { shapley } from '../../../src/economics/shapley.ts';
import { base, xAxis } from '../chart-style.ts';
import type { Evaluation } from '../evaluation.ts';
import type { Figure } from '../figure.ts';
import { digits, dollarMark, dollars } from '../format.ts';
import { readOrder } from '../scenario.ts';
import { type CostsBySet, keyOf, techniquesOf } from '../techniques.ts';

interface Step {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export function nameOf(technique: Technique, { architecture }: Evaluation): string {
  const { attention } = architecture;
  return {
    experts: 'sparse experts',
    mla: attention.kind === 'mla' ? 'MLA' : 'grouped heads',
    fp8: 'FP8',
    wide: 'spread experts',
    mtp: 'drafting (MTP)',
    caching: 'prefix cache',
  }[technique];
}

/** @param costs of the sets of techniques that the scenario's order needs */
export function whyCheap(evaluation: Evaluation, costs: CostsBySet): Figure {
  const { measure } = evaluation.scenario;
  const order = readOrder(evaluation.scenario.order);
  const used = techniquesOf(evaluation);
  const price = (on: readonly Technique[]) => costs.get(keyOf(on))?.[measure] ?? null;
  const start = price([]);
  const end = price(used) ?? evaluation.serving.usd[measure];
  const steps = start === null ? [] : order ? inOrder(start) : orderFree(start);
  const largest = steps.reduce(
    (a, b) => (b.from / b.to > a.from / a.to ? b : a),
    steps[0] ?? { name: '', from: 1, to: 1 },
  );
  const rows = [
    { name: 'dense, MHA, BF16', from: start ?? end, to: start ?? end, whole: true },
    ...steps.map((step) => ({ ...step, whole: false })),
    { name: 'all together', from: end, to: end, whole: true },
  ];
  return {
    id: 'why-cheap',
    title: 'Why it is cheap',
    says:
      start === null
        ? 'There is no price to begin from: a dense multi-head model of this size in BF16 does not fit this machine.'
        : steps.length === 0
          ? 'This is a dense multi-head model in BF16: nothing makes it cheaper.'
          : `An ${measure} token costs ${digits((start ?? end) / end)} times less than one of a dense multi-head model of the same ${digits(size(evaluation))} billion parameters in BF16. Most of it comes from ${largest.name}: ${digits(largest.from / largest.to)} times. Each step is on the number of devices that serves it cheapest.`,
    rows: rows.map(({ name, from, to }) => ({ step: name, 'USD before': from, 'USD after': to, factor: from / to })),
    workings: [
      ...steps.map(({ name, from, to }) => {
        const [above, below] = from >= to ? [from, to] : [to, from];
        return {
          what: name.charAt(0).toUpperCase() + name.slice(1),
          formula: from >= to ? 'price without ÷ price with it' : 'price with it ÷ price without',
          values: `${dollars(above)} ÷ ${dollars(below)}`,
          result: `${digits(above / below)} times ${from >= to ? 'cheaper' : 'dearer'}`,
        };
      }),
      {
        what: 'Together',
        formula: 'the product of all',
        values: steps.map(({ from, to }) => digits(from / to)).join(' × ') || '1',
        result: `${digits((start ?? end) / end)} times cheaper`,
      },
    ],
    chart: (style) => ({
      ...base(style),
      tooltip: { ...(base(style).tooltip as object), trigger: 'item' },
      grid: { left: 8, right: 72, top: 8, bottom: 30, containLabel: true },
      xAxis: {
        ...xAxis(style, { name: `$ a million ${measure} tokens`, format: dollarMark }),
        splitLine: { lineStyle: { color: style.rule } },
      },
      yAxis: {
        type: 'category',
        inverse: true,
        data: rows.map(({ name }) => name),
        axisLine: { show: false },
        axisTick: { show: false },
        axisLabel: { color: style.soft, fontSize: style.narrow ? 11 : 12, interval: 0 },
      },
      series: [
        {
          type: 'custom',
          name: 'price',
          data: rows.map(({ from, to }, i) => [i, from, to]),
          encode: { x: [1, 2], y: 0 },
          tooltip: {
            formatter: ({ dataIndex }: { dataIndex: number }) => {
              const { name, from, to, whole } = rows[dataIndex]!;
              return whole ? `${name}: ${dollars(to)}` : `${name}: ${dollars(from)} → ${dollars(to)}`;
            },
          },
          renderItem: (_: unknown, api: DrawingApi) => {
            const index = api.value(0);
            const { from, to, whole } = rows[index]!;
            const [left, y] = api.coord([whole ? floor() : Math.min(from, to), index]);
            const [right] = api.coord([Math.max(from, to), index]);
            const height = Math.min(22, api.size([0, 1])[1] * 0.62);
            const colour = whole ? style.strong : to <= from ? style.series[0] : style.series[3];
            const shape = { x: left, y: y - height / 2, width: Math.max(2, right - left), height, r: 3 };
            return {
              type: 'group',
              children: [
                { type: 'rect', shape, style: { fill: colour } },
                {
                  type: 'text',
                  style: {
                    text: whole ? dollars(to) : to <= from ? `÷ ${digits(from / to)}` : `× ${digits(to / from)}`,
                    x: right + 8,
                    y,
                    fill: whole ? style.ink : colour,
                    fontSize: 12,
                    fontWeight: 600,
                    fontFamily: style.font,
                    verticalAlign: 'middle',
                  },
                },
              ],
            };
          },
        },
      ],
    }),
  };

  /** A step that no number of devices serves by itself is told together with the next one. */
  function inOrder(start: number): Step[] {
    const chosen = (order ?? []).filter((technique) => used.includes(technique));
    const told: Step[] = [];
    let from = start;
    let names: string[] = [];
    chosen.forEach((technique, i) => {
      names.push(nameOf(technique, evaluation));
      const to = price(chosen.slice(0, i + 1));
      if (to === null) return;
      told.push({ name: names.join(', '), from, to });
      from = to;
      names = [];
    });
    return told;
  }

  function orderFree(start: number): Step[] {
    // A set that nothing serves counts as the dearest there is: what is missing from it is what makes it possible.
    const dearest = Math.max(...[...costs.values()].map((cost) => cost?.[measure] ?? 0));
    const shares = shapley(used.length, (set) => -Math.log(price(used.filter((_, i) => set & (1 << i))) ?? dearest));
    let from = start;
    return used.map((technique, i) => {
      const step = { name: nameOf(technique, evaluation), from, to: from / Math.exp(shares[i]!) };
      from = step.to;
      return step;
    });
  }

  /** Where bars that stand for a whole price begin: the axis has no zero. */
  function floor(): number {
    return 10 ** Math.floor(Math.log10(Math.min(...rows.map(({ to }) => to))));
  }
}

/** What ECharts hands to a series that draws itself. */
interface DrawingApi {
  value(dimension: number): number;
  coord(point: readonly [number, number]): [number, number];
  size(extent: readonly [number, number]): [number, number];
}

function size({ architecture }: Evaluation): number {
  const { total } = countParameters(architecture);
  return total / 1e9;
}
