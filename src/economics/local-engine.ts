/**
 * The engine of this package on the machine at hand, predicted from how fast its kernels ran there on other models, a
 * narrow and a wide one. A step is a list of operations, one after the other: each has a fixed cost, and time for its
 * weights, its pairs of query and cached token, or its bytes. Latent attention only; answers as `farthing bench` measures them.
 */
import type { Architecture } from './architecture.ts';
import { distinctExperts } from './expert-traffic.ts';

/** Tokens of `sequences` sequences, each with `start` tokens before its new ones. */
interface LocalStep {
  readonly phase: 'prefill' | 'decode';
  readonly sequences: number;
  readonly tokensEach: number;
  readonly start: number;
}

/** One step of the probe, as it was measured. */
export interface ObservedStep extends LocalStep {
  readonly kernels: readonly { readonly kernel: string; readonly calls: number; readonly seconds: number }[];
}

/** Seconds for a unit of work (a weight, an operation) at some number of rows; rows rise. */
type Curve = readonly { readonly rows: number; readonly seconds: number }[];

/** Rates at one width of model. */
interface WidthRates {
  readonly hidden: number;
  readonly secondsPerCall: number;
  readonly secondsPerByte: number;
  readonly linear: Curve;
  readonly head_linear: Curve;
  readonly expert_linear: Curve;
  readonly attention: { readonly prefill: DepthCurves; readonly decode: DepthCurves };
}

export interface EngineRates {
  /** Tokens that the engine takes into one step of a prompt. */
  readonly stepTokens: number;
  /** The narrowest first. */
  readonly widths: readonly WidthRates[];
}

/** Curves after contexts of some lengths, which rise. */
type DepthCurves = readonly { readonly depth: number; readonly curve: Curve }[];

const PRODUCTS = ['linear', 'head_linear', 'expert_linear'] as const;
const ATTENTION = 'latent_attention';

class LocalEngineError extends Error {
  override name = 'LocalEngineError';
}

/** Tokens a second of reading a prompt of so many tokens. */
export function localPrefill(a: Architecture, rates: EngineRates, promptTokens: number): number {
  let seconds = 0;
  for (let start = 0; start < promptTokens; start += rates.stepTokens) {
    const tokensEach = Math.min(rates.stepTokens, promptTokens - start);
    seconds += stepSeconds(a, rates, { phase: 'prefill', sequences: 1, tokensEach, start });
  }
  return promptTokens / seconds;
}

/** Tokens a second of `batch` sequences together that write after `context` tokens. */
export function localDecode(a: Architecture, rates: EngineRates, batch: number, context: number): number {
  return batch / stepSeconds(a, rates, { phase: 'decode', sequences: batch, tokensEach: 1, start: context });
}

/** Between the widths on either side of the model's, on a straight line of logarithms; the nearest width beyond them. */
function stepSeconds(a: Architecture, { widths }: EngineRates, step: LocalStep): number {
  return between(
    widths,
    a.hidden,
    ({ hidden }) => hidden,
    (rates) => secondsAtWidth(a, rates, step),
  );
}

function secondsAtWidth(a: Architecture, rates: WidthRates, step: LocalStep): number {
  const work = workOf(a, step);
  let seconds = work.calls * rates.secondsPerCall + work.bytes * rates.secondsPerByte;
  for (const kernel of PRODUCTS) {
    const { rows, weights } = work[kernel];
    seconds += weights * at(rates[kernel], rows);
  }
  seconds += work.headWeights * at(rates.linear, step.sequences);
  const perPair = between(
    rates.attention[step.phase],
    step.start,
    ({ depth }) => depth,
    ({ curve }) => at(curve, step.sequences * step.tokensEach),
  );
  return seconds + work.attention * perPair;
}

/**
 * Rates from steps of probes, the narrowest model first.
 * @param probes architectures with vocabularies too small for the head to count
 */
export function fitEngineRates(
  probes: readonly { readonly architecture: Architecture; readonly steps: readonly ObservedStep[] }[],
  stepTokens: number,
): EngineRates {
  return { stepTokens, widths: probes.map(({ architecture, steps }) => fitWidthRates(architecture, steps)) };
}

function fitWidthRates(a: Architecture, observed: readonly ObservedStep[]): WidthRates {
  const isOther = (kernel: string) => kernel !== ATTENTION && !PRODUCTS.some((product) => product === kernel);
  const others = ({ kernels }: ObservedStep) => kernels.filter(({ kernel }) => isOther(kernel));
  const seconds = (kernels: ObservedStep['kernels']) => kernels.reduce((all, each) => all + each.seconds, 0);
  const calls = (kernels: ObservedStep['kernels']) => kernels.reduce((all, each) => all + each.calls, 0);
  const tokens = (step: LocalStep) => step.sequences * step.tokensEach;
  const bySize = [...observed].sort((one, other) => tokens(one) - tokens(other));
  const [least, most] = [bySize[0], bySize.at(-1)];
  if (!least || !most) throw new LocalEngineError('observed has 0 steps, expected some of one token and of many');
  // With one token there is next to nothing to move.
  const secondsPerCall = seconds(others(least)) / calls(others(least));
  const moved = seconds(others(most)) - calls(others(most)) * secondsPerCall;
  const curve = (
    kernel: string,
    steps: readonly ObservedStep[],
    point: (step: ObservedStep) => { rows: number; work: number },
  ) =>
    meanByRows(
      steps.flatMap((step) => {
        const found = step.kernels.filter((each) => each.kernel === kernel);
        const { rows, work } = point(step);
        const time = seconds(found) - calls(found) * secondsPerCall;
        return work > 0 && time > 0 ? [{ rows, seconds: time / work }] : [];
      }),
    );
  const product = (kernel: (typeof PRODUCTS)[number]) =>
    curve(kernel, observed, (step) => {
      const { rows, weights } = workOf(a, step)[kernel];
      return { rows, work: weights };
    });
  const attention = (phase: LocalStep['phase']): DepthCurves => {
    const steps = observed.filter((step) => step.phase === phase && step.start > 0);
    return ascending(steps.map(({ start }) => start)).map((depth) => ({
      depth,
      curve: curve(
        ATTENTION,
        steps.filter(({ start }) => start === depth),
        (step) => ({ rows: tokens(step), work: workOf(a, step).attention }),
      ),
    }));
  };
  return {
    hidden: a.hidden,
    secondsPerCall,
    secondsPerByte: Math.max(0, moved) / workOf(a, most).bytes,
    linear: product('linear'),
    head_linear: product('head_linear'),
    expert_linear: product('expert_linear'),
    attention: { prefill: attention('prefill'), decode: attention('decode') },
  };
}

const at = (curve: Curve, rows: number) =>
  between(
    curve,
    rows,
    (point) => point.rows,
    ({ seconds }) => seconds,
  );

/** On a straight line between the points around x, both axes logarithmic; the nearest point beyond them. */
function between<Point>(
  points: readonly Point[],
  x: number,
  xOf: (point: Point) => number,
  yOf: (point: Point) => number,
): number {
  const next = points.findIndex((point) => xOf(point) >= x);
  if (next <= 0) return yOf(points.at(next)!);
  const [low, high] = [points[next - 1]!, points[next]!];
  const share = Math.log(x / xOf(low)) / Math.log(xOf(high) / xOf(low));
  return yOf(low) ** (1 - share) * yOf(high) ** share;
}

const ascending = (values: readonly number[]) => [...new Set(values)].sort((one, other) => one - other);

function meanByRows(points: Curve): Curve {
  return ascending(points.map(({ rows }) => rows)).map((rows) => {
    const same = points.filter((point) => point.rows === rows);
    return { rows, seconds: same.reduce((sum, point) => sum + point.seconds, 0) / same.length };
  });
}

interface Product {
  readonly rows: number;
  readonly weights: number;
}

interface Work {
  readonly calls: number;
  /** Of what is read and written beside weights and cache, FP32. */
  readonly bytes: number;
  readonly attention: number;
  readonly headWeights: number;
  readonly linear: Product;
  readonly head_linear: Product;
  readonly expert_linear: Product;
}

const FP32 = 4;

/** The operations of model/deepseek.ts, counted. */
function workOf(a: Architecture, { sequences, tokensEach, start }: LocalStep): Work {
  const { attention, experts, hidden, layers } = a;
  if (attention.kind !== 'mla' || attention.indexer) {
    throw new LocalEngineError(`the model is ${a.modelType}, expected one with latent attention that the engine runs`);
  }
  const { heads, qRank, kvRank, nopeDim, ropeDim, valueDim } = attention;
  const tokens = sequences * tokensEach;
  const moeLayers = experts ? layers - a.denseLayers : 0;
  const denseLayers = layers - moeLayers;
  const queryWidth = heads * (nopeDim + ropeDim);
  const projections =
    (qRank === null ? hidden * queryWidth : qRank * (hidden + queryWidth)) +
    hidden * (kvRank + ropeDim) +
    heads * valueDim * hidden;
  const width = experts?.width ?? 0;
  const shared = (experts?.shared ?? 0) * width;
  const router = hidden * (experts?.routed ?? 0);
  const woken = experts ? distinctExperts(experts, tokens) : 0;
  const topK = experts?.topK ?? 0;
  const pairs = sequences * (tokensEach * start + (tokensEach * (tokensEach + 1)) / 2);
  const attentionCalls = (qRank === null ? 3 : 4) + 2 + 1;
  const elementwiseCalls = (qRank === null ? 3 : 4) + 2 + 1 + 1 + 2;
  const moeCalls = 1 + 1 + 1 + 3 + 1 + 1 + (shared > 0 ? 5 : 0);
  const denseCalls = 4;
  const perToken =
    layers * (2 * 2 + 2 * 3) * hidden +
    layers * 2 * (queryWidth + kvRank + ropeDim + (qRank ?? 0)) +
    layers * 3 * (kvRank + ropeDim) +
    denseLayers * 3 * a.denseWidth +
    moeLayers * (3 * topK * width + (topK + 1) * hidden + (shared > 0 ? 3 * shared + 3 * hidden : 0));
  return {
    calls: layers * (attentionCalls + elementwiseCalls) + moeLayers * moeCalls + denseLayers * denseCalls + 4,
    bytes: tokens * perToken * FP32,
    attention: layers * 2 * heads * (2 * kvRank + ropeDim) * pairs,
    headWeights: hidden * a.vocab,
    linear: {
      rows: tokens,
      weights:
        layers * projections + denseLayers * 3 * hidden * a.denseWidth + moeLayers * (3 * hidden * shared + router),
    },
    head_linear: { rows: tokens, weights: layers * heads * kvRank * (nopeDim + valueDim) },
    expert_linear: {
      rows: woken > 0 ? (tokens * topK) / woken : tokens,
      weights: moeLayers * woken * 3 * hidden * width,
    },
  };
}
