/**
 * Frequencies of rotary position embeddings and what context extension does to them: linear interpolation, YaRN
 * (Peng et al. 2023, §3; DeepSeek-V3 report §4.3) and Llama 3's bands. All are static: they hold at every position.
 */
import type { ModelConfig, RopeScaling } from './config.ts';

export interface RopeSettings {
  /** [rotary dim / 2]: position × inverseFrequencies[i] is the angle of channel pair i. */
  readonly inverseFrequencies: Float64Array;
  /** Cosines and sines are multiplied by this. */
  readonly magnitude: number;
  /** The scale of query–key products before the softmax. */
  readonly softmaxScale: number;
}

export function ropeFrequencies(config: ModelConfig): RopeSettings {
  const { ropeScaling, ropeTheta } = config;
  const dim = config.family === 'deepseek' ? config.qkRopeHeadDim : config.headDim;
  const queryDim = config.family === 'deepseek' ? config.qkNopeHeadDim + dim : dim;
  const plain = Float64Array.from({ length: dim / 2 }, (_, i) => ropeTheta ** ((-2 * i) / dim));
  // DeepSeek also sharpens the whole score, squared because queries and keys each carry it.
  const sharpening =
    config.family === 'deepseek' && ropeScaling.type === 'yarn'
      ? yarnMagnitude(ropeScaling.factor, ropeScaling.mscaleAllDim) ** 2
      : 1;
  return {
    inverseFrequencies: scaled(plain, ropeScaling, ropeTheta),
    magnitude: magnitudeOf(ropeScaling),
    softmaxScale: sharpening / Math.sqrt(queryDim),
  };
}

function magnitudeOf(scaling: RopeScaling): number {
  if (scaling.type !== 'yarn') return 1;
  const { factor, mscale, mscaleAllDim, attentionFactor } = scaling;
  return attentionFactor ?? yarnMagnitude(factor, mscale) / yarnMagnitude(factor, mscaleAllDim);
}

function yarnMagnitude(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

function scaled(plain: Float64Array, scaling: RopeScaling, theta: number): Float64Array {
  switch (scaling.type) {
    case 'none':
      return plain;
    case 'linear':
      return plain.map((frequency) => frequency / scaling.factor);
    case 'yarn':
      return yarn(plain, scaling, theta);
    case 'llama3':
      return plain.map((frequency) => llama3(frequency, scaling));
  }
}

/** Fast channels stay, slow ones are interpolated, with a linear ramp between the two rotation counts. */
function yarn(plain: Float64Array, scaling: RopeScaling & { type: 'yarn' }, theta: number): Float64Array {
  const dim = 2 * plain.length;
  const channelThatTurns = (times: number) =>
    (dim * Math.log(scaling.originalMaxPositionEmbeddings / (2 * Math.PI * times))) / (2 * Math.log(theta));
  const low = Math.max(Math.floor(channelThatTurns(scaling.betaFast)), 0);
  const high = Math.min(Math.ceil(channelThatTurns(scaling.betaSlow)), dim - 1);
  const width = high === low ? 0.001 : high - low;
  return plain.map((frequency, i) => {
    const ramp = Math.min(Math.max((i - low) / width, 0), 1);
    return (frequency / scaling.factor) * ramp + frequency * (1 - ramp);
  });
}

function llama3(frequency: number, scaling: RopeScaling & { type: 'llama3' }): number {
  const { factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings } = scaling;
  const turns = (originalMaxPositionEmbeddings * frequency) / (2 * Math.PI);
  if (turns < lowFreqFactor) return frequency / factor;
  if (turns > highFreqFactor) return frequency;
  const kept = (turns - lowFreqFactor) / (highFreqFactor - lowFreqFactor);
  return ((1 - kept) * frequency) / factor + kept * frequency;
}
