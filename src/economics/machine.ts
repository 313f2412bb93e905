/**
 * Devices to serve and train on: a dated catalogue from data sheets, and machines that the user describes in a file.
 * Links are one direction, for one device.
 */
import { z } from 'zod';
import { number, oneOf, parseFields, whole } from '../model/config-fields.ts';
import catalogue from './data/machines.json' with { type: 'json' };
import { KERNELS, type KernelEfficiency } from './kernel-efficiency.ts';
import {
  type Bytes,
  type BytesPerSecond,
  bytes,
  bytesPerSecond,
  type FlopPerSecond,
  flopPerSecond,
  type UsdPerHour,
  usdPerHour,
} from './quantity.ts';

export interface Machine {
  readonly id: string;
  readonly name: string;
  readonly kind: 'gpu' | 'cpu';
  readonly bf16: FlopPerSecond;
  /** null: no FP8 units; FP8 weights are then multiplied at the BF16 rate. */
  readonly fp8: FlopPerSecond | null;
  readonly memory: Bytes;
  readonly bandwidth: BytesPerSecond;
  /** Inside a node, and between nodes; null where there is none. */
  readonly localLink: BytesPerSecond | null;
  readonly remoteLink: BytesPerSecond | null;
  readonly devicesPerNode: number;
  readonly multiprocessors: number;
  /** Share of the nominal clock that is kept under load. */
  readonly sustainedClock: number;
  /** Rent of one device. */
  readonly price: UsdPerHour;
  readonly kernels: KernelEfficiency;
  readonly source: string;
}

/** @throws Error naming the machines there are */
export function machineById(id: string, among: readonly Machine[] = MACHINES): Machine {
  const found = among.find((machine) => machine.id === id);
  if (!found) throw new Error(`there is no machine "${id}"; there are ${among.map((m) => m.id).join(', ')}`);
  return found;
}

const rate = number(1e6, 1e20);

const machineFields = z.object({
  id: z.string('a name').min(1, 'a name'),
  name: z.string('a name').nullish(),
  kind: oneOf(['gpu', 'cpu']).nullish(),
  bf16FlopsPerSecond: rate,
  fp8FlopsPerSecond: rate.nullish(),
  memoryBytes: number(1e6, 1e16),
  memoryBytesPerSecond: rate,
  localLinkBytesPerSecond: rate.nullish(),
  remoteLinkBytesPerSecond: rate.nullish(),
  devicesPerNode: whole(1, 4096).nullish(),
  multiprocessors: whole(1, 65536).nullish(),
  sustainedClock: number(0.01, 1).nullish(),
  usdPerHour: number(0, 1e6),
  source: z.string('a text').nullish(),
});

/**
 * @param json one machine in the fields of data/machines.json
 * @throws ConfigError naming the field, what was found and the range that is allowed
 */
export function parseMachine(json: unknown, fileName: string): Machine {
  const fields = parseFields(machineFields, asObject(json), fileName);
  return {
    id: fields.id,
    name: fields.name ?? fields.id,
    kind: fields.kind ?? 'gpu',
    bf16: flopPerSecond(fields.bf16FlopsPerSecond),
    fp8: fields.fp8FlopsPerSecond ? flopPerSecond(fields.fp8FlopsPerSecond) : null,
    memory: bytes(fields.memoryBytes),
    bandwidth: bytesPerSecond(fields.memoryBytesPerSecond),
    localLink: fields.localLinkBytesPerSecond ? bytesPerSecond(fields.localLinkBytesPerSecond) : null,
    remoteLink: fields.remoteLinkBytesPerSecond ? bytesPerSecond(fields.remoteLinkBytesPerSecond) : null,
    devicesPerNode: fields.devicesPerNode ?? 1,
    multiprocessors: fields.multiprocessors ?? 132,
    sustainedClock: fields.sustainedClock ?? 1,
    price: usdPerHour(fields.usdPerHour),
    kernels: KERNELS,
    source: fields.source ?? fileName,
  };
}

function asObject(json: unknown): object {
  return typeof json === 'object' && json !== null ? json : {};
}

/** The machines that come with the package. Below the schema, which must exist before anything is parsed with it. */
export const MACHINES: readonly Machine[] = catalogue.machines.map((entry) => parseMachine(entry, 'machines.json'));
