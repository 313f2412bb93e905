/** How the waterfall is told: which price, and in which order its steps come. */
import type { Technique } from '../../src/economics/explanation.ts';
import type { Evaluation } from './evaluation.ts';
import { nameOf } from './figures/why-cheap.ts';
import { readOrder, START } from './scenario.ts';
import { change } from './state.ts';
import { techniquesOf } from './techniques.ts';

export function Telling({ now }: { now: Evaluation }) {
  const { measure, order } = now.scenario;
  const steps = readOrder(order);
  const used = techniquesOf(now);
  return (
    <div class="telling">
      <div class="chips">
        {(['output', 'input'] as const).map((kind) => (
          <button
            key={kind}
            type="button"
            class="chip"
            aria-pressed={measure === kind}
            onClick={() => change({ measure: kind })}
          >
            {kind}
          </button>
        ))}
        <button
          type="button"
          class="chip"
          aria-pressed={steps === null}
          onClick={() => change({ order: steps ? 'free' : START.order })}
        >
          in no order
        </button>
      </div>
      {steps && (
        <ol class="steps" aria-label="Order of the steps">
          {steps
            .filter((step) => used.includes(step))
            .map((step, i) => (
              <li key={step}>
                <button
                  type="button"
                  class="step"
                  disabled={i === 0}
                  title={`${nameOf(step, now)}: one step earlier`}
                  onClick={() => change({ order: earlier(steps, step, used) })}
                >
                  {nameOf(step, now)}
                  <span class="unseen">: one step earlier</span>
                </button>
              </li>
            ))}
        </ol>
      )}
      {steps && <p class="hint">A step moves forward when pressed.</p>}
    </div>
  );
}

/** The step changes places with the one shown before it. */
function earlier(steps: readonly Technique[], step: Technique, used: readonly Technique[]): string {
  const before = steps.slice(0, steps.indexOf(step)).findLast((other) => used.includes(other));
  return steps.map((other) => (other === step ? before : other === before ? step : other)).join('.');
}
