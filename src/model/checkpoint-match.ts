/**
 * Whether the tensors of a folder are those of its config: none missing, none extra, each with the shape and type that
 * the catalogue calls for.
 */
import { CheckpointError, type TensorInFile } from './checkpoint-files.ts';
import type { ModelConfig } from './config.ts';
import type { ExpectedWeight } from './weight-catalogue.ts';

/** @param source the file or index to name where a tensor is missing. @throws CheckpointError at the first mismatch */
export function checkAgainstCatalogue(
  catalogue: readonly ExpectedWeight[],
  found: ReadonlyMap<string, TensorInFile>,
  source: string,
): void {
  for (const expected of catalogue) checkTensor(expected, found, source);
  checkNothingIsLeft(catalogue, found);
}

/**
 * Parts that files and configs are known to disagree about, none of which changes what the main model computes. An MTP
 * module that the config does not name is set aside whole; one that the config names and no file has (tools that
 * re-save a model drop it) is taken out of the config. The notes say so.
 * @param found loses the tensors that are set aside
 */
export function settleOptionalParts(config: ModelConfig, found: Map<string, TensorInFile>) {
  const notes: string[] = [];
  const drop = (belongs: (name: string) => boolean) => {
    for (const name of found.keys()) if (belongs(name)) found.delete(name);
  };
  drop((name) => HARMLESS.test(name));
  if (config.family !== 'deepseek') return { config, notes };
  const module = (depth: number) => `model.layers.${config.numHiddenLayers + depth}.`;
  const stored = (depth: number) => [...found.keys()].some((name) => name.startsWith(module(depth)));
  if (config.numNextnPredictLayers > 0 && !stored(0)) {
    notes.push(
      `${module(0)}*: no MTP module is stored, though num_nextn_predict_layers = ${config.numNextnPredictLayers}`,
    );
    return { config: { ...config, numNextnPredictLayers: 0 }, notes };
  }
  if (config.numNextnPredictLayers > 0) return { config, notes };
  for (let depth = 0; found.has(`${module(depth)}eh_proj.weight`); depth++) {
    drop((name) => name.startsWith(module(depth)));
    notes.push(`${module(depth)}*: an MTP module, set aside because num_nextn_predict_layers = 0 in config.json`);
  }
  return { config, notes };
}

/** Buffers that some tools save and every reader computes from the config. */
const HARMLESS = /^model\.(layers\.\d+\.self_attn\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)$/;

const OTHER_MODEL = 'The file and the config are from different models';

function checkTensor(expected: ExpectedWeight, found: ReadonlyMap<string, TensorInFile>, source: string): void {
  const { name, dtypes, required } = expected;
  const stored = found.get(name);
  const shape = stored?.tensor.dtype === 'U8' ? expected.shape.with(-1, expected.shape.at(-1)! / 2) : expected.shape;
  if (!stored) {
    if (required === 'always') {
      throw new CheckpointError(
        `${source}: tensor "${name}" is missing, expected [${shape.join(', ')}] (${dtypes.join(' or ')}). The file is incomplete or of another model than config.json`,
      );
    }
    if (required === 'with-codes') checkScalePresence(expected, null, found);
    return;
  }
  const { file, tensor } = stored;
  const refuse = (problem: string): never => {
    throw new CheckpointError(`${file}: tensor "${name}" ${problem}`);
  };
  if (!dtypes.includes(tensor.dtype)) {
    const advice =
      tensor.dtype === 'F8_E4M3'
        ? '. F8_E4M3 needs the quantization_config of the published config.json, and only projections may have it'
        : '';
    refuse(`has dtype ${tensor.dtype}, expected ${dtypes.join(' or ')}${advice}`);
  }
  const wrongAxes = expected.axes
    .map((key, i) => `${key} = ${shape[i]}`)
    .filter((_, i) => tensor.shape[i] !== shape[i]);
  if (wrongAxes.length > 0 || tensor.shape.length !== shape.length) {
    const because = wrongAxes.length > 0 ? `\n  (${wrongAxes.join(', ')} in config.json)` : '';
    refuse(`has shape [${tensor.shape.join(', ')}], expected [${shape.join(', ')}]${because}. ${OTHER_MODEL}`);
  }
  if (required === 'with-codes') checkScalePresence(expected, stored, found);
}

/** A scale is there exactly when its weight has codes; the two may lie in different shards. */
function checkScalePresence(
  { name: scaleName, scales }: ExpectedWeight,
  scale: TensorInFile | null,
  found: ReadonlyMap<string, TensorInFile>,
) {
  const { weight: name, dtype } = scales!;
  const weight = found.get(name)!;
  if (weight.tensor.dtype === dtype && !scale) {
    throw new CheckpointError(
      `${weight.file}: tensor "${name}" is ${dtype}, but its block scales "${scaleName}" are missing`,
    );
  }
  if (weight.tensor.dtype !== dtype && scale) {
    throw new CheckpointError(
      `${scale.file}: tensor "${scaleName}" scales "${name}", which is ${weight.tensor.dtype}, expected ${dtype}`,
    );
  }
}

function checkNothingIsLeft(catalogue: readonly ExpectedWeight[], found: ReadonlyMap<string, TensorInFile>): void {
  const expected = new Set(catalogue.map(({ name }) => name));
  const extra = [...found.values()].filter(({ tensor }) => !expected.has(tensor.name));
  const [first] = extra;
  if (!first) return;
  const others = extra.length > 1 ? ` and ${extra.length - 1} more are` : ' is';
  throw new CheckpointError(
    `${first.file}: tensor "${first.tensor.name}"${others} not part of the model that config.json describes. ${OTHER_MODEL}`,
  );
}
