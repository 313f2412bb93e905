/**
 * What routing tokens to experts moves: how many distinct experts a batch touches, whose weights must be read, and the
 * bytes of the two all-to-alls that carry tokens to experts and results back.
 */
import { ConfigError } from '../model/config-fields.ts';
import type { Architecture, Experts } from './architecture.ts';
import { countParameters, type Precision, weightBytes } from './counts.ts';
import { type Bytes, type BytesPerToken, bytes, bytesPerToken } from './quantity.ts';

/**
 * Expected number of distinct experts that a batch of tokens touches in one layer. Each token picks `topK` different
 * ones, so an expert is left out by one token with probability 1 - topK/routed: exact for uniform routing.
 * @param skew share of tokens routed to each expert, as measured (sums to topK); uniform unless given
 */
export function distinctExperts({ routed, topK }: Experts, batch: number, skew?: readonly number[]): number {
  if (!skew) return routed * (1 - (1 - topK / routed) ** batch);
  return skew.reduce((sum, share) => sum + 1 - (1 - share) ** batch, 0);
}

/**
 * Weights that one decode step of `batch` tokens reads: all but the input table and the experts nobody was routed to.
 * Tables and routers stay in BF16.
 * @param skew as for `distinctExperts`
 */
export function touchedWeightBytes(
  a: Architecture,
  batch: number,
  precision: Precision,
  skew?: readonly number[],
): Bytes {
  const { parts } = countParameters(a);
  const share = a.experts ? distinctExperts(a.experts, batch, skew) / a.experts.routed : 0;
  const products = parts.attention + parts.dense + parts.sharedExperts + parts.routedExperts * share;
  const head = parts.head > 0 ? parts.head : parts.embedding;
  return bytes(products * weightBytes(precision) + (head + parts.routers + parts.norms) * weightBytes('bf16'));
}

/**
 * Shares of tokens for each expert, as `distinctExperts` takes them, from a measured load.
 * @param loads tokens that each expert of a layer was given
 * @throws ConfigError when that is not a load of this model's experts
 */
export function expertShares({ routed, topK }: Experts, loads: unknown, fileName: string): number[] {
  const expected = `tokens of each of the ${routed} experts of a layer, none with more than all tokens`;
  const numbers = Array.isArray(loads) ? loads.map(Number) : [];
  const sum = numbers.reduce((all, load) => all + load, 0);
  const shares = numbers.map((load) => (load / sum) * topK);
  if (shares.length !== routed || !shares.every((share) => share >= 0 && share <= 1 + 1e-9)) {
    throw new ConfigError(`${fileName}: found ${shares.length} loads, expected ${expected}`);
  }
  return shares;
}

/** Bytes of one token's activations as they travel: a byte a value with a scale for each 128, or two bytes. */
export function wireBytes(hidden: number, format: Precision): number {
  return format === 'fp8' ? hidden + 4 * Math.ceil(hidden / 128) : 2 * hidden;
}

/** Expected number of distinct nodes, of `nodes`, that hold a token's experts, its own node among them or not. */
function expectedNodes({ routed, topK, groups, topGroups }: Experts, nodes: number): number {
  const groupsPerNode = groups / nodes;
  const perGroup = routed / groups;
  if (groups === 1 || !Number.isInteger(groupsPerNode)) return nodes * (1 - (1 - 1 / nodes) ** topK);
  // With j of the node's groups among the chosen, none of the token's experts lie there; summed over j.
  let missed = 0;
  for (let j = 0; j <= Math.min(groupsPerNode, topGroups); j++) {
    const chosen =
      (binomial(groupsPerNode, j) * binomial(groups - groupsPerNode, topGroups - j)) / binomial(groups, topGroups);
    missed += (chosen * binomial((topGroups - j) * perGroup, topK)) / binomial(topGroups * perGroup, topK);
  }
  return nodes * (1 - missed);
}

function binomial(n: number, k: number): number {
  if (k < 0 || k > n) return 0;
  let value = 1;
  for (let i = 0; i < k; i++) value *= (n - i) / (i + 1);
  return value;
}

export interface ExchangeBytes {
  readonly dispatch: BytesPerToken;
  readonly combine: BytesPerToken;
}

/**
 * Bytes that one token sends in one layer to the experts, and that come back in BF16: to other nodes, and inside nodes.
 * @param spread devices that the experts are spread over, and how many of them the fast link of a node joins
 * @param kernel `throughput`: once to each node, spread there (prefill); `latency`: once to each expert (decode)
 */
export function exchangeBytes(
  a: Architecture & { readonly experts: Experts },
  { devices, devicesPerNode }: { readonly devices: number; readonly devicesPerNode: number },
  kernel: 'throughput' | 'latency',
  format: Precision,
): { readonly remote: ExchangeBytes; readonly local: ExchangeBytes } {
  const nodes = Math.max(1, devices / devicesPerNode);
  const dispatch = wireBytes(a.hidden, format);
  const combine = wireBytes(a.hidden, 'bf16');
  const { topK } = a.experts;
  const elsewhere = (nodes - 1) / nodes;
  const remoteCopies = (kernel === 'throughput' ? expectedNodes(a.experts, nodes) : topK) * elsewhere;
  // Inside a node every copy passes the fast link once, but for the share that stays on its device.
  const localCopies =
    kernel === 'throughput' ? topK * (1 - 1 / devices) : (topK / nodes) * (1 - 1 / Math.min(devices, devicesPerNode));
  const both = (copies: number) => ({
    dispatch: bytesPerToken(copies * dispatch),
    combine: bytesPerToken(copies * combine),
  });
  return { remote: both(remoteCopies), local: both(localCopies) };
}
