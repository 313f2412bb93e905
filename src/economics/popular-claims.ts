/** What is often said about why DeepSeek is cheap, beside the arithmetic. */
import { cacheBytes, countParameters, trainingFlop, withAttention } from './counts.ts';
import published from './data/published.json' with { type: 'json' };
import { decodePoint } from './decode.ts';
import { type Deployment, widelySpread } from './deployment.ts';
import { REAL_TRAFFIC_IMBALANCE } from './expert-balance.ts';
import { distinctExperts } from './expert-traffic.ts';
import { machineById } from './machine.ts';
import { modelById } from './model-catalogue.ts';
import { PRICE_BOOK, type TokenPrices } from './price-book.ts';
import { PRICE_DECIMALS } from './price-book-money.ts';
import { quote } from './price-book-quote.ts';
import { productionArithmetic } from './production-day.ts';

interface PopularClaim {
  readonly claim: string;
  readonly verdict: string;
  readonly figures: readonly { readonly value: string; readonly formula: string }[];
}

const times = (value: number) => `${value.toFixed(value < 10 ? 2 : 1)} ×`;
const percent = (share: number) => `${(share * 100).toFixed(1)} %`;
const billions = (value: number) => `${(value / 1e9).toFixed(1)} B`;

export function popularClaims(): PopularClaim[] {
  return [
    activeShare(),
    smallerCache(),
    fp8(),
    moreUsers(),
    cheaperByArchitecture(),
    drafting(),
    trained(),
    prices(),
    fourteenCents(),
  ];
}

function activeShare(): PopularClaim {
  const of = (id: string) => countParameters(modelById(id).architecture);
  const share = (id: string, name: string) => {
    const { active, total } = of(id);
    return {
      value: percent(active / total),
      formula: `${name}: ${billions(active)} of ${billions(total)} for a token`,
    };
  };
  const experts = modelById('deepseek-v3').architecture.experts!;
  const touched = (batch: number) => ({
    value: percent(distinctExperts(experts, batch) / experts.routed),
    formula: `of a layer’s experts are read by a step of ${batch}: 1 − (1 − ${experts.topK}/${experts.routed})^${batch}`,
  });
  return {
    claim: 'About 5.5 % of the weights are active for a token.',
    verdict: 'Right for arithmetic. Wrong for memory: all weights stay resident, and a batch reads nearly all of them.',
    figures: [
      share('deepseek-v3', 'V3'),
      share('deepseek-v2', 'V2'),
      share('mixtral-8x7b', 'Mixtral'),
      touched(1),
      touched(32),
      touched(128),
    ],
  };
}

function smallerCache(): PopularClaim {
  const v3 = modelById('deepseek-v3').architecture;
  const own = cacheBytes(v3, 'bf16');
  const against = (value: number, what: string) => ({
    value: times(value / own),
    formula: `${what}: ${(value / 1000).toFixed(1)} KB a token over ${(own / 1000).toFixed(1)} KB`,
  });
  return {
    claim: 'Latent attention makes the cache 4 to 8 times smaller than multi-head attention.',
    verdict: 'That range is right against models with grouped queries; against multi-head attention it is far more.',
    figures: [
      against(cacheBytes(withAttention(v3, 'mha'), 'bf16'), 'V3 with its 128 heads as multi-head attention'),
      against(cacheBytes(withAttention(v3, 'gqa8'), 'bf16'), 'V3 with eight key-value heads'),
      against(cacheBytes(modelById('qwen2.5-72b').architecture, 'bf16'), 'Qwen2.5-72B, grouped by eight'),
      against(cacheBytes(modelById('llama-3.1-405b').architecture, 'bf16'), 'Llama-3.1-405B, grouped by eight'),
    ],
  };
}

/** V3 decoding as on the production day, with what `change` says otherwise. */
function decoding(change: Partial<Deployment>, batch: number, context = published.productionDay.contextTokens): number {
  const { architecture } = modelById('deepseek-v3');
  const usual = widelySpread(machineById('h800-sxm'), published.productionDay.decodeDevices);
  const deployment = { ...usual, imbalance: REAL_TRAFFIC_IMBALANCE, ...change };
  return decodePoint(architecture, deployment, batch, context).perDevice;
}

function fp8(): PopularClaim {
  const { bf16, fp8: peak } = machineById('h800-sxm');
  const gain = (batch: number) => ({
    value: times(decoding({ precision: 'fp8' }, batch) / decoding({ precision: 'bf16' }, batch)),
    formula: `decoding V3 at ${batch} sequences a device and 4,989 tokens, FP8 over BF16, by the model of serving`,
  });
  return {
    claim: 'FP8 doubles throughput.',
    verdict:
      'It doubles the peak and halves the bytes of weights. Attention and links gain nothing, so the whole gains less.',
    figures: [{ value: times(peak! / bf16), formula: 'H800, peak in FP8 over BF16' }, gain(8), gain(100)],
  };
}

function moreUsers(): PopularClaim {
  const gain = (context: number) => ({
    value: percent(1 - decoding({}, 32, context) / decoding({}, 128, context)),
    formula: `less for a token of V3 with 128 sequences a device instead of 32, at ${context.toLocaleString('en')} tokens of context`,
  });
  return {
    claim: 'Four times the users make hardware 75 % cheaper for each.',
    verdict: 'An upper bound: it holds while fixed costs bind. Attention and links grow with every user.',
    figures: [
      { value: percent(1 - 1 / 4), formula: '1 − 1/4, if a step took as long with four times the users' },
      gain(512),
      gain(4989),
      gain(32768),
    ],
  };
}

function cheaperByArchitecture(): PopularClaim {
  const flop = (id: string) => trainingFlop(modelById(id).architecture, 4096);
  const { marginPercent } = productionArithmetic();
  const margin = marginPercent / 100;
  return {
    claim: 'The architecture makes inference more than 90 % cheaper.',
    verdict: 'Not published as such; it depends on what one compares with. `farthing price explain` shows each step.',
    figures: [
      {
        value: percent(1 - flop('deepseek-v3') / flop('llama-3.1-405b')),
        formula: 'fewer operations for a token than Llama-3.1-405B',
      },
      {
        value: percent(1 - 1 / published.v2Generation),
        formula: `less for V2’s output than 67B’s: 1 − 1/${published.v2Generation}, printed throughputs`,
      },
      { value: percent(margin / (1 + margin)), formula: 'of revenue was margin on the production day, at list prices' },
    ],
  };
}

function drafting(): PopularClaim {
  const gain = (batch: number) => ({
    value: times(decoding({ mtpAcceptance: 0.85 }, batch) / decoding({}, batch)),
    formula: `tokens of V3 with drafting at 85 % over without, ${batch} sequences a device, by the model of serving`,
  });
  return {
    claim: 'Multi-token prediction makes decoding 1.8 times as fast.',
    verdict: 'For a user who is served with few others. In full batches the drafted tokens compete for what binds.',
    figures: [
      { value: times(1.85), formula: 'tokens a step at 85 % acceptance: 1 + 0.85' },
      gain(4),
      gain(32),
      gain(128),
    ],
  };
}

function trained(): PopularClaim {
  const { v3 } = published.training;
  const days = v3.tokens / v3.tokensPerDay;
  return {
    claim: 'V3 was trained on 2,048 H800 in under two months for 5.6 million dollars.',
    verdict: 'Right for the final run alone, at an assumed 2 dollars an hour; research and trial runs are not in it.',
    figures: [
      { value: `${days.toFixed(1)} d`, formula: `${v3.tokens / 1e12} T tokens at ${v3.tokensPerDay / 1e9} B a day` },
      {
        value: `$${((v3.totalHours * v3.usdPerHour) / 1e6).toFixed(3)} M`,
        formula: `${v3.totalHours / 1000} K device-hours at $${v3.usdPerHour}`,
      },
    ],
  };
}

function prices(): PopularClaim {
  const at = (model: string, day: string) => quote(PRICE_BOOK, model, Date.parse(`${day}T12:00:00Z`)).rates[0]!;
  const pair = (cheap: TokenPrices, dear: TokenPrices, what: string) => ({
    value: times(Number(dear.miss) / Number(cheap.miss)),
    formula: `${what}, input missed; output ${times(Number(dear.output) / Number(cheap.output))}`,
  });
  return {
    claim: 'It is 20 times cheaper.',
    verdict: 'Between 9 and 107 times can be quoted; it depends on the pair and the day.',
    figures: [
      pair(at('deepseek-v3', '2025-03-01'), at('gpt-4o', '2025-03-01'), 'V3 against GPT-4o, March 2025'),
      pair(at('deepseek-r1', '2025-03-01'), at('o1', '2025-03-01'), 'R1 against o1, March 2025'),
      pair(
        at('deepseek-v2', '2024-06-01'),
        at('gpt-4-1106-preview', '2024-06-01'),
        'V2 against GPT-4 Turbo, June 2024',
      ),
    ],
  };
}

function fourteenCents(): PopularClaim {
  const on = (model: string, day: string, kind: 'hit' | 'miss', what: string) => {
    const price = quote(PRICE_BOOK, model, Date.parse(`${day}T12:00:00Z`)).rates[0]![kind];
    return { value: price === null ? '–' : `$${moneyOf(price)}`, formula: what };
  };
  return {
    claim: 'It costs 14 cents a million tokens.',
    verdict: 'Of some products on some days; it never was the list price of V3 for input that missed the cache.',
    figures: [
      on('deepseek-v2', '2024-06-01', 'miss', 'V2, input, June 2024'),
      on('deepseek-v3', '2025-01-15', 'miss', 'V3, input missed, launch price of January 2025'),
      on('deepseek-v3', '2025-03-01', 'miss', 'V3, input missed, list price of March 2025'),
      on('deepseek-r1', '2025-03-01', 'hit', 'R1, input found in the cache, March 2025'),
    ],
  };
}

const moneyOf = (price: bigint) => (Number(price) / 10 ** PRICE_DECIMALS).toFixed(2);
