/** A slider with its name and value; equal steps, or equal factors where values span orders of magnitude. */
import { useId } from 'preact/hooks';

export interface SliderProps {
  readonly label: string;
  readonly value: number;
  readonly least: number;
  readonly greatest: number;
  readonly scale?: 'even' | 'factors';
  readonly format: (value: number) => string;
  readonly onChange: (value: number) => void;
}

const POSITIONS = 200;

export function Slider({ label, value, least, greatest, scale = 'even', format, onChange }: SliderProps) {
  const id = useId();
  const even = scale === 'even';
  const position = even ? value : (Math.log(value / least) / Math.log(greatest / least)) * POSITIONS;
  const valueAt = (at: number) => (even ? at : rounded(least * (greatest / least) ** (at / POSITIONS)));
  const share = even ? (value - least) / (greatest - least) : position / POSITIONS;
  return (
    <div class="slider">
      <label for={id}>{label}</label>
      <output for={id}>{format(value)}</output>
      <input
        id={id}
        type="range"
        min={even ? least : 0}
        max={even ? greatest : POSITIONS}
        step={1}
        value={Math.round(position)}
        style={{ '--share': share }}
        aria-valuetext={format(value)}
        onInput={({ currentTarget }) => onChange(valueAt(Number(currentTarget.value)))}
      />
    </div>
  );
}

/** Three significant digits: finer than the steps, so that none of them is lost. */
function rounded(value: number): number {
  return Number(value.toPrecision(3));
}
