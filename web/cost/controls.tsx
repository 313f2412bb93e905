/** Model, machine and workload: everything that the figures depend on. */
import { useId } from 'preact/hooks';
import { MACHINES, machineById } from '../../src/economics/machine.ts';
import { modelById } from '../../src/economics/model-catalogue.ts';
import { count, digits, dollars } from './format.ts';
import { API_PRICES, RANGES, type Scenario, SERVABLE, WORKLOADS } from './scenario.ts';
import { Slider } from './slider.tsx';
import { change, scenario } from './state.ts';

export function Controls() {
  return (
    <form class="controls" aria-label="Scenario" onSubmit={(event) => event.preventDefault()}>
      <ModelControls />
      <WorkloadControls />
      <ServingControls />
      <PurchaseControls />
    </form>
  );
}

function ModelControls() {
  const { model, machine, rent } = scenario.value;
  const listed = machineById(machine).price;
  return (
    <fieldset>
      <legend>Model and machine</legend>
      <Select
        label="Model"
        value={model}
        options={SERVABLE.map(({ id, name }) => [id, name])}
        onChange={(id) => change({ model: id })}
      />
      <Select
        label="Machine"
        value={machine}
        options={MACHINES.map(({ id, name }) => [id, name])}
        onChange={(id) => change({ machine: id, rent: null })}
      />
      <Slider
        label="Rent of a device"
        value={rent ?? listed}
        {...RANGES.rent}
        scale="factors"
        format={(value) => `${dollars(value)} an hour`}
        onChange={(value) => change({ rent: value })}
      />
    </fieldset>
  );
}

function WorkloadControls() {
  const { prompt, output, hits } = scenario.value;
  return (
    <fieldset>
      <legend>Workload</legend>
      <div class="chips">
        {WORKLOADS.map(({ id, name, ...workload }) => (
          <button
            key={id}
            type="button"
            class="chip"
            aria-pressed={prompt === workload.prompt && output === workload.output && hits === workload.hits}
            onClick={() => change(workload)}
          >
            {name}
          </button>
        ))}
      </div>
      <Slider
        label="Prompt"
        value={prompt}
        {...RANGES.prompt}
        scale="factors"
        format={(v) => `${v.toLocaleString('en')} tokens`}
        onChange={(value) => change({ prompt: value })}
      />
      <Slider
        label="Answer"
        value={output}
        {...RANGES.output}
        scale="factors"
        format={(v) => `${v.toLocaleString('en')} tokens`}
        onChange={(value) => change({ output: value })}
      />
      <Slider
        label="Prompt found in cache"
        value={hits}
        {...RANGES.hits}
        format={(v) => `${v} %`}
        onChange={(value) => change({ hits: value })}
      />
    </fieldset>
  );
}

function ServingControls() {
  const { model, speed, load, precision, cache, spread, mtp } = scenario.value;
  const { architecture } = modelById(model);
  const { experts, mtpLayers } = architecture;
  return (
    <fieldset>
      <legend>Serving</legend>
      <Slider
        label="Speed for each user"
        value={speed}
        {...RANGES.speed}
        scale="factors"
        format={(v) => `${digits(v)} tokens/s`}
        onChange={(value) => change({ speed: value })}
      />
      <Slider
        label="Load, on average"
        value={load}
        {...RANGES.load}
        format={(v) => `${v} %`}
        onChange={(value) => change({ load: value })}
      />
      {mtpLayers > 0 && (
        <Slider
          label="Drafted tokens kept"
          value={mtp}
          {...RANGES.mtp}
          format={(v) => (v === 0 ? 'no drafting' : `${v} %`)}
          onChange={(value) => change({ mtp: value })}
        />
      )}
      <Choice
        label="Weights"
        value={precision}
        options={['fp8', 'bf16']}
        onChange={(value) => change({ precision: value })}
      />
      <Choice label="Cache" value={cache} options={['bf16', 'fp8']} onChange={(value) => change({ cache: value })} />
      {experts && experts.routed >= 64 && (
        <label class="check">
          <input
            type="checkbox"
            checked={spread}
            onChange={({ currentTarget }) => change({ spread: currentTarget.checked })}
          />
          Experts spread over many devices
        </label>
      )}
    </fieldset>
  );
}

function PurchaseControls() {
  const { api, volume } = scenario.value;
  return (
    <fieldset>
      <legend>Against an API</legend>
      <Select
        label="API price"
        value={api}
        options={[...API_PRICES].map(([key, { model, from }]) => [key, `${model}, from ${from.text.slice(0, 10)}`])}
        onChange={(key) => change({ api: key })}
      />
      <Slider
        label="Tokens a month"
        value={volume}
        {...RANGES.volume}
        scale="factors"
        format={(v) => count(v * 1e6)}
        onChange={(value) => change({ volume: value })}
      />
    </fieldset>
  );
}

function Select({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: string;
  options: readonly (readonly [string, string])[];
  onChange: (value: string) => void;
}) {
  const id = useId();
  return (
    <div class="select">
      <label for={id}>{label}</label>
      <select id={id} class="field" value={value} onChange={({ currentTarget }) => onChange(currentTarget.value)}>
        {options.map(([key, name]) => (
          <option key={key} value={key}>
            {name}
          </option>
        ))}
      </select>
    </div>
  );
}

function Choice<Name extends Scenario['precision']>({
  label,
  value,
  options,
  onChange,
}: {
  label: string;
  value: Name;
  options: readonly Name[];
  onChange: (value: Name) => void;
}) {
  const id = useId();
  return (
    <div class="choice" role="radiogroup" aria-labelledby={id}>
      <span id={id}>{label}</span>
      <span class="choice-options">
        {options.map((option) => (
          <label key={option}>
            <input type="radio" name={id} checked={option === value} onChange={() => onChange(option)} />
            <span>{option.toUpperCase()}</span>
          </label>
        ))}
      </span>
    </div>
  );
}
