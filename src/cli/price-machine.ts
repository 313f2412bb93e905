/** `--machine` of the price commands: a machine of the catalogue, or a JSON file that describes one. */
import type { Machine } from '../economics/machine.ts';
import { readJson } from './price-model.ts';

/** @throws Error naming the machines there are, or what a file lacks */
export async function readMachine(machine: string, usdPerHour?: number): Promise<Machine> {
  const { machineById, parseMachine } = await import('../economics/machine.ts');
  const { usdPerHour: rent } = await import('../economics/quantity.ts');
  const found = /[./\\]/.test(machine) ? parseMachine(await readJson(machine), machine) : machineById(machine);
  return usdPerHour === undefined ? found : { ...found, price: rent(usdPerHour) };
}
