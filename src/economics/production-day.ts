/**
 * The one day of a large service that was published in full (27 to 28 February 2025): its arithmetic, its workload, and
 * how much of its capacity a day's demand uses.
 */
import published from './data/published.json' with { type: 'json' };
import { seconds } from './quantity.ts';
import type { Workload } from './serving.ts';

const day = published.productionDay;
const TOKENS_PER_PRICE = 1e6;

/** Cost, revenue at list prices, and profit over cost, from the printed quantities. */
export function productionArithmetic() {
  const cost = day.nodes * day.devicesPerNode * 24 * day.usdPerDeviceHour;
  const misses = day.inputTokens - day.hitTokens;
  const revenue =
    (day.hitTokens * day.prices.hit + misses * day.prices.miss + day.outputTokens * day.prices.output) /
    TOKENS_PER_PRICE;
  return {
    cost,
    revenue,
    marginPercent: ((revenue - cost) / cost) * 100,
    hitShare: day.hitTokens / day.inputTokens,
    prefillNodes: day.inputTokens / 86_400 / day.prefillPerNode,
    decodeNodes: day.outputTokens / 86_400 / day.decodePerNode,
  };
}

/**
 * The day's mean request. Input over output is given, and the mean cache length an output token looks back on: prompt
 * and half the output, since no distribution is given.
 */
export function productionWorkload(): Workload {
  const inputPerOutput = day.inputTokens / day.outputTokens;
  const outputTokens = day.contextTokens / (inputPerOutput + 1 / 2);
  const [slow, fast] = day.tokensPerSecondPerUser as [number, number];
  return {
    promptTokens: outputTokens * inputPerOutput,
    outputTokens,
    hitShare: day.hitTokens / day.inputTokens,
    context: day.contextTokens,
    tpotTarget: seconds(1 / ((slow + fast) / 2)),
    ttftTarget: seconds(5),
    load: 1,
  };
}

/**
 * Mean share of capacity in use: nodes follow the published steps over the day, demand follows a measured day of
 * traffic to another service of the same model, and its highest ten minutes just fit the most nodes. Neither is fitted
 * to the published throughput.
 */
export function productionLoad(): number {
  const rates = published.dayOfTraffic.requestsPerSecond;
  const meanOverPeak = rates.reduce((sum, rate) => sum + rate, 0) / rates.length / Math.max(...rates);
  return (meanOverPeak * day.peakNodes) / meanNodes();
}

/** Time-weighted mean of the published node steps; 226.75. */
export function meanNodes(): number {
  const steps = day.nodeSteps.map(([clock, nodes]) => {
    const [hour, minute] = (clock as string).split(':').map(Number) as [number, number];
    // The day begins at noon.
    return { at: (hour + minute / 60 + 12) % 24, nodes: nodes as number };
  });
  return steps.reduce((sum, { at, nodes }, i) => sum + nodes * ((steps[i + 1]?.at ?? 24) - at), 0) / 24;
}
