/** From a dense multi-head model of the same size in BF16 to the scenario, one technique after the other. */
import { countParameters } from '../../../src/economics/counts.ts';
import { DeploymentError } from '../../../src/economics/deployment.ts';
import { base, xAxis } from '../chart-style.ts';
import type { Evaluation } from '../evaluation.ts';
import type { Figure } from '../figure.ts';
import { digits, dollarMark, dollars } from '../format.ts';
import { readOrder, type Technique } from '../scenario.ts';
import { priceWith, shapley, techniquesOf } from '../techniques.ts';

interface Step {
  readonly name: string;
  readonly from: number;
  readonly to: number;
}

export function nameOf(technique: Technique, { architecture }: Evaluation): string {
  const { attention } = architecture;
  return {
    experts: 'sparse experts',
    attention: attention.kind === 'mla' ? 'MLA' : 'grouped heads',
    fp8: 'FP8',
    spread: 'spread experts',
    drafts: 'drafting (MTP)',
    prefixes: 'prefix cache',
  }[technique];
}

export function whyCheap(evaluation: Evaluation): Figure {
  const { measure } = evaluation.scenario;
  const order = readOrder(evaluation.scenario.order);
  const used = techniquesOf(evaluation);
  const end = evaluation.serving.usd[measure];
  const told = tell();
  const { start, steps } = typeof told === 'string' ? { start: end, steps: [] } : told;
  const largest = steps.reduce(
    (a, b) => (b.from / b.to > a.from / a.to ? b : a),
    steps[0] ?? { name: '', from: 1, to: 1 },
  );
  const rows = [
    { name: 'dense, MHA, BF16', from: start, to: start, whole: true },
    ...steps.map((step) => ({ ...step, whole: false })),
    { name: 'as served', from: end, to: end, whole: true },
  ];
  return {
    id: 'why-cheap',
    title: 'Why it is cheap',
    says:
      typeof told === 'string'
        ? `There is no price to begin from, a dense multi-head model in BF16: ${told}.`
        : steps.length === 0
          ? 'This is a dense multi-head model in BF16: nothing makes it cheaper.'
          : `An ${measure} token costs ${digits(start / end)} times less than one of a dense multi-head model of the same ${digits(size(evaluation))} billion parameters in BF16. Most of it comes from ${largest.name}: ${digits(largest.from / largest.to)} times.`,
    rows: rows.map(({ name, from, to }) => ({ step: name, 'USD before': from, 'USD after': to, factor: from / to })),
    workings: [
      ...steps.map(({ name, from, to }) => ({
        what: name.charAt(0).toUpperCase() + name.slice(1),
        formula: order ? 'price before ÷ price with it' : 'the mean over all orders, as a factor',
        values: `${dollars(from)} ÷ ${dollars(to)}`,
        result: `${digits(from / to)} times cheaper`,
      })),
      {
        what: 'Together',
        formula: 'the product of all',
        values: steps.map(({ from, to }) => digits(from / to)).join(' × ') || '1',
        result: `${digits(start / end)} times cheaper`,
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

  /** Or the words of what does not fit. */
  function tell(): { start: number; steps: Step[] } | string {
    try {
      const start = priceWith(evaluation, new Set())[measure];
      const steps = order
        ? inOrder(
            start,
            order.filter((technique) => used.includes(technique)),
          )
        : orderFree(start);
      return { start, steps };
    } catch (error) {
      if (error instanceof DeploymentError) return error.message;
      throw error;
    }
  }

  function inOrder(start: number, chosen: readonly Technique[]): Step[] {
    const on = new Set<Technique>();
    let from = start;
    return chosen.map((technique) => {
      on.add(technique);
      const step = { name: nameOf(technique, evaluation), from, to: priceWith(evaluation, on)[measure] };
      from = step.to;
      return step;
    });
  }

  function orderFree(start: number): Step[] {
    let from = start;
    return [...shapley(evaluation, used, measure)].map(([technique, factor]) => {
      const step = { name: nameOf(technique, evaluation), from, to: from / factor };
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
