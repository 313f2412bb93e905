/** The whole page: the prices that a scenario comes to, what it is made of, and the figures that explain it. */
import { useMemo } from 'preact/hooks';
import { Masthead } from '../style/masthead.tsx';
import { Controls } from './controls.tsx';
import type { Evaluation } from './evaluation.ts';
import { FigureCard } from './figure-card.tsx';
import { breakEvenFigure } from './figures/break-even.ts';
import { cacheByUsers } from './figures/cache-by-users.ts';
import { priceByBatch } from './figures/price-by-batch.ts';
import { priceByContext } from './figures/price-by-context.ts';
import { roofline } from './figures/roofline.ts';
import { whyCheap } from './figures/why-cheap.ts';
import { Ledger } from './ledger.tsx';
import { drawn, evaluated, takenApart } from './state.ts';
import { Telling } from './telling.tsx';

const FIGURES = [priceByBatch, priceByContext, roofline, cacheByUsers, breakEvenFigure];

export function CostPage() {
  const now = evaluated.value;
  return (
    <div class="cost-page">
      <Masthead page="cost/" />
      <main>
        <header class="opening-line">
          <h1 class="page-title">What a token costs, and why</h1>
          <p>
            Choose a model, a machine and a workload. Every number is worked out here, from the architecture and the
            data sheet; every figure opens its formula.
          </p>
        </header>
        <Ledger now={now} />
        <div class="cost-columns">
          <Controls />
          <div class="figures">
            {typeof now === 'string' ? <Refusal words={now} /> : <Figures now={drawn.value ?? now} />}
          </div>
        </div>
      </main>
    </div>
  );
}

function Figures({ now }: { now: Evaluation }) {
  const { model, machine } = now;
  const figures = useMemo(() => FIGURES.map((figure) => figure(now)), [now]);
  const about = `${model.name} on ${machine.name} · Farthing, ${location.origin}${location.pathname}${location.search}`;
  return (
    <>
      <Waterfall about={about} now={now} />
      {figures.map((figure) => (
        <FigureCard key={figure.id} figure={figure} about={about} />
      ))}
    </>
  );
}

function Waterfall({ now, about }: { now: Evaluation; about: string }) {
  const apart = takenApart.value;
  const figure = useMemo(() => apart && whyCheap(apart.of, apart.costs), [apart]);
  if (!figure) return <section class="figure pending" aria-busy="true" />;
  return (
    <FigureCard figure={figure} about={about}>
      <Telling now={now} />
    </FigureCard>
  );
}

function Refusal({ words }: { words: string }) {
  return (
    <section class="refusal">
      <h2>This does not go together</h2>
      <p>{words}.</p>
      <p>Another machine, FP8 weights, a shorter prompt or a slower target may.</p>
    </section>
  );
}
