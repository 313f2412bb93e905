/**
 * The rotary part of a config.json: `rope_theta` and `rope_scaling`, or the newer `rope_parameters` that holds both.
 * Every key in there changes the frequencies, so an unknown one is refused.
 */
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import type { RopeScaling } from './config.ts';
import { LIMITS, number, oneOf, only, parseFields, type Refuse, refuseIn, whole } from './config-fields.ts';

export const ropeFields = {
  rope_theta: number(2, 1e12).nullish(),
  rope_scaling: z.looseObject({}, 'an object or null').nullish(),
  rope_parameters: z.looseObject({}, 'an object or null').nullish(),
};

type RopeFields = z.infer<z.ZodObject<typeof ropeFields>>;

export function parseRope(fields: RopeFields, fileName: string): { ropeTheta: number; ropeScaling: RopeScaling } {
  const refuse = refuseIn(fileName);
  const older = fields.rope_scaling ? parseScaling('rope_scaling', fields.rope_scaling, fileName, refuse) : null;
  const newer = fields.rope_parameters
    ? parseScaling('rope_parameters', fields.rope_parameters, fileName, refuse)
    : null;
  if (older && newer && !isDeepStrictEqual(older.scaling, newer.scaling)) {
    refuse('rope_parameters', fields.rope_parameters, 'the same as rope_scaling, or one of the two alone');
  }
  const thetas = [fields.rope_theta, older?.theta, newer?.theta].filter((theta) => typeof theta === 'number');
  const [ropeTheta = 10000] = thetas;
  if (thetas.some((theta) => theta !== ropeTheta)) {
    refuse('rope_theta', ropeTheta, 'the same value wherever it is given');
  }
  return { ropeTheta, ropeScaling: newer?.scaling ?? older?.scaling ?? { type: 'none' } };
}

/** `rope_theta` and `rope_scaling`; DeepSeek's files name the kind `type`, the others `rope_type`. */
export function ropeJson(ropeTheta: number, scaling: RopeScaling, kindKey: 'type' | 'rope_type') {
  return { rope_theta: ropeTheta, rope_scaling: scalingJson(scaling, kindKey) };
}

const namesOfKind = {
  type: z.string().optional(),
  rope_type: z.string().optional(),
  rope_theta: number(2, 1e12).nullish(),
  partial_rotary_factor: only(1, 'partly rotated heads are not implemented'),
};

const scalingFields = {
  default: z.strictObject(namesOfKind),
  linear: z.strictObject({ ...namesOfKind, factor: number(1, 1e6) }),
  yarn: z.strictObject({
    ...namesOfKind,
    factor: number(1, 1e6),
    original_max_position_embeddings: whole(1, LIMITS.positions),
    beta_fast: number(1e-6, 1e6).default(32),
    beta_slow: number(1e-6, 1e6).default(1),
    mscale: number(1e-6, 1e3).optional(),
    mscale_all_dim: number(0, 1e3).optional(),
    attention_factor: number(1e-6, 1e3).nullish(),
    truncate: only(true, 'unrounded correction ranges are not implemented'),
  }),
  llama3: z.strictObject({
    ...namesOfKind,
    factor: number(1, 1e6),
    low_freq_factor: number(1e-6, 1e6),
    high_freq_factor: number(1e-6, 1e6),
    original_max_position_embeddings: whole(1, LIMITS.positions),
  }),
};

const kinds = oneOf(['default', 'linear', 'yarn', 'llama3']);

interface Rope {
  readonly theta: number | null | undefined;
  readonly scaling: RopeScaling;
}

function parseScaling(field: string, raw: Record<string, unknown>, fileName: string, refuse: Refuse): Rope {
  const kindKey = 'rope_type' in raw ? 'rope_type' : 'type';
  const kind = parseFields(z.object({ [field]: z.object({ [kindKey]: kinds }) }), { [field]: raw }, fileName)[field]![
    kindKey
  ]!;
  if (raw.type !== undefined && raw.type !== kind) refuse(`${field}.type`, raw.type, `"${kind}" as in rope_type`);
  const fieldsOf = <Schema extends z.ZodType>(schema: Schema): z.infer<Schema> =>
    parseFields(z.object({ [field]: schema }), { [field]: raw }, fileName)[field] as z.infer<Schema>;

  if (kind === 'default') return { theta: fieldsOf(scalingFields.default).rope_theta, scaling: { type: 'none' } };
  if (kind === 'linear') {
    const { rope_theta: theta, factor } = fieldsOf(scalingFields.linear);
    return { theta, scaling: { type: 'linear', factor } };
  }
  if (kind === 'llama3') {
    const given = fieldsOf(scalingFields.llama3);
    if (given.high_freq_factor <= given.low_freq_factor) {
      refuse(
        `${field}.high_freq_factor`,
        given.high_freq_factor,
        `more than low_freq_factor = ${given.low_freq_factor}`,
      );
    }
    return {
      theta: given.rope_theta,
      scaling: {
        type: 'llama3',
        factor: given.factor,
        lowFreqFactor: given.low_freq_factor,
        highFreqFactor: given.high_freq_factor,
        originalMaxPositionEmbeddings: given.original_max_position_embeddings,
      },
    };
  }
  const given = fieldsOf(scalingFields.yarn);
  if (given.beta_fast < given.beta_slow) {
    refuse(`${field}.beta_fast`, given.beta_fast, `at least beta_slow = ${given.beta_slow}`);
  }
  if ((given.mscale === undefined) !== (given.mscale_all_dim === undefined)) {
    const missing = given.mscale === undefined ? 'mscale' : 'mscale_all_dim';
    refuse(`${field}.${missing}`, undefined, 'a number, since mscale and mscale_all_dim work only together');
  }
  return {
    theta: given.rope_theta,
    scaling: {
      type: 'yarn',
      factor: given.factor,
      originalMaxPositionEmbeddings: given.original_max_position_embeddings,
      betaFast: given.beta_fast,
      betaSlow: given.beta_slow,
      mscale: given.mscale ?? 1,
      mscaleAllDim: given.mscale_all_dim ?? 0,
      attentionFactor: given.attention_factor ?? null,
    },
  };
}

function scalingJson(scaling: RopeScaling, kindKey: 'type' | 'rope_type'): Record<string, unknown> | null {
  switch (scaling.type) {
    case 'none':
      return null;
    case 'linear':
      return { [kindKey]: 'linear', factor: scaling.factor };
    case 'yarn':
      return {
        [kindKey]: 'yarn',
        factor: scaling.factor,
        original_max_position_embeddings: scaling.originalMaxPositionEmbeddings,
        beta_fast: scaling.betaFast,
        beta_slow: scaling.betaSlow,
        mscale: scaling.mscale,
        mscale_all_dim: scaling.mscaleAllDim,
        ...(scaling.attentionFactor === null ? {} : { attention_factor: scaling.attentionFactor }),
      };
    case 'llama3':
      return {
        [kindKey]: 'llama3',
        factor: scaling.factor,
        low_freq_factor: scaling.lowFreqFactor,
        high_freq_factor: scaling.highFreqFactor,
        original_max_position_embeddings: scaling.originalMaxPositionEmbeddings,
      };
  }
}
