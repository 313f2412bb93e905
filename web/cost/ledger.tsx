/** The prices a scenario comes to, and in a sentence what it is made of. It stays in view while sliders move. */
import { apiPrice } from '../../src/economics/break-even.ts';
import type { Evaluation } from './evaluation.ts';
import { count, digits, dollars } from './format.ts';
import { API_PRICES } from './scenario.ts';

const ENTRIES = [
  { key: 'output', name: 'output' },
  { key: 'miss', name: 'input' },
  { key: 'hit', name: 'input, cached' },
  { key: 'request', name: 'on average' },
] as const;

export function Ledger({ now }: { now: Evaluation | string }) {
  return (
    <>
      <section class="ledger" aria-label="Dollars for a million tokens">
        <dl>
          {ENTRIES.map(({ key, name }) => (
            <div key={key} class={`entry ${key}`}>
              <dt>{name}</dt>
              <dd>{typeof now === 'string' ? '–' : dollars(now.serving.usd[key])}</dd>
            </div>
          ))}
        </dl>
        <p class="ledger-unit">for a million tokens</p>
      </section>
      {typeof now !== 'string' && <Sentence now={now} />}
    </>
  );
}

function Sentence({ now: { model, machine, plan, serving, workload, scenario } }: { now: Evaluation }) {
  const { prefill, decode } = serving;
  const api = API_PRICES.get(scenario.api)!;
  const perMillion = apiPrice(api, workload);
  const ratio = perMillion / serving.usd.request;
  const limit = { memory: 'memory allows', latency: 'the speed allows', demand: 'there are' }[decode.limit];
  const binds = { compute: 'arithmetic', memory: 'reading memory', link: 'the links', launch: 'starting kernels' };
  const units = (devices: number) => (devices === 1 ? 'one device' : `${devices} devices`);
  return (
    <p class="sentence">
      <strong>{model.name}</strong> on {machine.name}: units of {units(plan.prefill.devices)} read{' '}
      {count(prefill.inputPerNode)} tokens a second and node, units of {units(plan.decode.devices)} write{' '}
      {count(decode.perNode)}, with the {digits(decode.batch)} sequences a device that {limit}. Most of a step goes into{' '}
      {binds[decode.binds]}. {api.model} is sold at {dollars(perMillion)}, {digits(ratio)} times this cost.
    </p>
  );
}
