/** How much of a span of time was disk: bytes and pages that the process had to wait for, and time without work. */
import { threads } from '../backend/native.ts';

export interface DiskShare {
  readonly seconds: number;
  /** Read from disk on account of this process; what the system's cache held is not among them. */
  readonly diskBytes: number;
  /** Page faults that waited for the disk. */
  readonly majorFaults: number;
  /** Share of the threads' time in which they did not compute: waits for the disk, and for other processes. */
  readonly idle: number;
}

/** Begins a span. @returns what ends it */
export function measureDisk(): () => DiskShare {
  const [start, before] = [performance.now(), process.resourceUsage()];
  return () => {
    const [seconds, after] = [(performance.now() - start) / 1000, process.resourceUsage()];
    const cpu = after.userCPUTime + after.systemCPUTime - before.userCPUTime - before.systemCPUTime;
    return {
      seconds,
      diskBytes: (after.fsRead - before.fsRead) * 512,
      majorFaults: after.majorPageFault - before.majorPageFault,
      idle: Math.max(0, 1 - cpu / 1e6 / (seconds * threads())),
    };
  };
}
