/** A figure with its sentence, its files, and the formulas behind it, opened on demand. */
import type { ComponentChildren } from 'preact';
import { Chart } from './chart.tsx';
import { download, type Format } from './export.ts';
import type { Figure, Working } from './figure.ts';

const FORMATS: readonly Format[] = ['PNG', 'SVG', 'CSV'];

export function FigureCard({
  figure,
  about,
  children,
}: {
  figure: Figure;
  about: string;
  /** Choices that belong to this figure alone. */
  children?: ComponentChildren;
}) {
  const { id, title, says, workings } = figure;
  return (
    <section class="figure" id={id} aria-labelledby={`${id}-title`}>
      <header class="figure-head">
        <h2 id={`${id}-title`}>{title}</h2>
        <div class="figure-files">
          {FORMATS.map((format) => (
            <button
              key={format}
              type="button"
              class="text-button"
              title={`Save this figure as ${format}`}
              onClick={() => download(figure, format, about)}
            >
              <span class="unseen">{title}: save as </span>
              {format}
            </button>
          ))}
        </div>
      </header>
      <p class="figure-says">{says}</p>
      {children}
      <Chart figure={figure} />
      <details class="workings">
        <summary>
          The formula, with these values<span class="unseen"> ({title})</span>
        </summary>
        <ol>
          {workings.map((working) => (
            <WorkingItem key={working.what} working={working} />
          ))}
        </ol>
      </details>
    </section>
  );
}

function WorkingItem({ working: { what, formula, values, result } }: { working: Working }) {
  return (
    <li>
      <h3>{what}</h3>
      <p class="formula">= {raised(formula)}</p>
      <p class="formula">
        = {raised(values)} = <strong>{result}</strong>
      </p>
    </li>
  );
}

/** Exponents are written 10^6 and set above the line. */
function raised(text: string): ComponentChildren[] {
  return text.split(/(\^[−\d]+)/).map((part, i) => (part.startsWith('^') ? <sup key={i}>{part.slice(1)}</sup> : part));
}
