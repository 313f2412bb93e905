/** Renting machines against paying an API, by the tokens of a month. */
import { apiPrice, breakEven, type Rented, rentFor } from '../../../src/economics/break-even.ts';
import { DeploymentError } from '../../../src/economics/deployment.ts';
import { serve } from '../../../src/economics/serving.ts';
import { smallestPlan } from '../../../src/economics/suggested-plan.ts';
import { base, here, line, rules, xAxis, yAxis } from '../chart-style.ts';
import type { Evaluation } from '../evaluation.ts';
import { type Figure, geometric } from '../figure.ts';
import { count, dollarMark, dollars } from '../format.ts';
import { API_PRICES } from '../scenario.ts';

const POINTS = 90;

export function breakEvenFigure(evaluation: Evaluation): Figure {
  const { workload, scenario, machine } = evaluation;
  const cheapest = cheapestRent(evaluation);
  const price = API_PRICES.get(scenario.api)!;
  const perMillion = apiPrice(price, workload);
  const at = breakEven((tokens) => cheapest(tokens).cost, perMillion);
  const tokens = scenario.volume * 1e6;
  const now = cheapest(tokens);
  const api = (tokens * perMillion) / 1e6;
  const from = Math.min(tokens, at ?? tokens) / 100;
  const volumes = geometric(from, Math.max(tokens, at ?? tokens) * 20, POINTS).map((volume) => ({
    volume,
    rent: cheapest(volume).cost,
    api: (volume * perMillion) / 1e6,
  }));
  const devices = now.prefillDevices + now.decodeDevices;
  return {
    id: 'break-even',
    title: 'Rent or buy by the token',
    says:
      at === null
        ? `At no volume do machines of one’s own cost less than ${price.model} at ${dollars(perMillion)} a million tokens.`
        : `From ${count(at)} tokens a month on, machines of one’s own cost less than ${price.model} at ${dollars(perMillion)} a million. At ${count(tokens)} they cost ${dollars(now.cost)} a month, the API ${dollars(api)}.`,
    rows: volumes.map(({ volume, rent, api }) => ({ 'tokens a month': volume, 'rent, USD': rent, 'API, USD': api })),
    workings: [
      {
        what: 'A million tokens at the API',
        formula: '((hit × share + miss × (1 − share)) × prompt + output × answer) ÷ (prompt + answer)',
        values: `${price.model} from ${price.from.text}, its hours averaged over a week`,
        result: dollars(perMillion),
      },
      {
        what: 'Rent a month',
        formula: 'devices × rent an hour × 730 h',
        values: `${devices} × $${machine.price.toFixed(2)} × 730`,
        result: dollars(now.cost),
      },
      {
        what: 'Devices',
        formula: now.apart
          ? 'whole units for reading + whole units for writing'
          : 'whole units that read and write in turns',
        values: now.apart ? `${now.prefillDevices} + ${now.decodeDevices}` : `${devices}`,
        result: `${devices}`,
      },
      ...(at === null
        ? []
        : [
            {
              what: 'Where the two meet',
              formula: 'rent a month ÷ price a million × 10^6',
              values: `${dollars(cheapest(at).cost)} ÷ ${dollars(perMillion)} × 10^6`,
              result: `${count(at)} tokens`,
            },
          ]),
    ],
    chart: (style) => ({
      ...base(style),
      grid: { left: 8, right: 58, top: 34, bottom: 30, containLabel: true },
      xAxis: xAxis(style, { name: 'tokens a month', format: count, min: from, max: volumes.at(-1)!.volume }),
      yAxis: yAxis(style, { name: '$ a month', format: dollarMark }),
      series: [
        {
          ...line(
            style,
            0,
            'own',
            volumes.map(({ volume, rent }) => [volume, rent] as const),
          ),
          step: 'end',
          tooltip: { valueFormatter: dollars },
          ...(at === null ? {} : { markLine: rules(style, [{ xAxis: at, label: `meet at ${count(at)}` }]) }),
        },
        {
          ...line(
            style,
            1,
            'API',
            volumes.map(({ volume, api }) => [volume, api] as const),
          ),
          tooltip: { valueFormatter: dollars },
        },
        here(style, dollars(now.cost), tokens, now.cost),
      ],
    }),
  };
}

/** The cheaper of the plan as chosen and of few devices that read and write in turns. */
function cheapestRent({
  architecture,
  machine,
  plan,
  serving,
  workload,
  choice,
}: Evaluation): (tokens: number) => Rented {
  const together = smallUnits();
  return (tokens) => {
    const apart = rentFor(plan, serving, workload, true, tokens);
    const one = together && rentFor(together.plan, together.serving, workload, false, tokens);
    return one && one.cost <= apart.cost ? one : apart;
  };

  function smallUnits() {
    try {
      const small = smallestPlan(architecture, machine, choice);
      return { plan: small, serving: serve(architecture, small, workload) };
    } catch (error) {
      // Too slow for the target without spreading: then there is only the other way.
      if (error instanceof DeploymentError) return null;
      throw error;
    }
  }
}
