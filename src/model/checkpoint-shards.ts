/** Writing the weights of a checkpoint folder: one model.safetensors, or shards of limited size and their index. */
import path from 'node:path';
import { replaceFile } from '../numerics/replace-file.ts';
import { bytesOfTensor, type TensorToWrite, writeSafetensors } from '../numerics/safetensors-writer.ts';

export interface ShardOptions {
  /** Most bytes of tensors in one file, unless a single tensor has more. */
  readonly shardBytes: number;
  /** Called after each tensor with the bytes written so far and in all. */
  readonly onProgress: (written: number, total: number) => void;
}

export async function writeShards(
  folder: string,
  tensors: readonly TensorToWrite[],
  { shardBytes, onProgress }: ShardOptions,
): Promise<void> {
  const total = tensors.reduce((sum, tensor) => sum + bytesOfTensor(tensor), 0);
  let written = 0;
  const counted = (tensor: TensorToWrite): TensorToWrite => ({
    ...tensor,
    async bytes() {
      const bytes = typeof tensor.bytes === 'function' ? await tensor.bytes() : tensor.bytes;
      written += bytes.byteLength;
      onProgress(written, total);
      return bytes;
    },
  });
  const shards = dealt(tensors, shardBytes);
  const numbered = (i: number) => String(i).padStart(5, '0');
  const fileOf = (shard: number) =>
    shards.length === 1
      ? 'model.safetensors'
      : `model-${numbered(shard + 1)}-of-${numbered(shards.length)}.safetensors`;
  const weightMap: Record<string, string> = {};
  for (const [shard, held] of shards.entries()) {
    await writeSafetensors(path.join(folder, fileOf(shard)), held.map(counted), { format: 'pt' });
    for (const { name } of held) weightMap[name] = fileOf(shard);
  }
  if (shards.length === 1) return;
  const index = JSON.stringify({ metadata: { total_size: total }, weight_map: weightMap }, null, 2);
  await replaceFile(path.join(folder, 'model.safetensors.index.json'), (file) => file.writeFile(`${index}\n`));
}

/** The tensors in order, cut where the next one would exceed `shardBytes`. */
function dealt(tensors: readonly TensorToWrite[], shardBytes: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [];
  let left = 0;
  for (const tensor of tensors) {
    const bytes = bytesOfTensor(tensor);
    if (bytes > left || shards.length === 0) {
      shards.push([]);
      left = shardBytes;
    }
    shards.at(-1)!.push(tensor);
    left -= bytes;
  }
  return shards;
}
