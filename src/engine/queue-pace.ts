/** How fast the queue moves: requests that left it for the batch, since it was last empty. */

/** Older ones say little of now. */
const KEPT = 64;

export class QueuePace {
  /** Times in milliseconds. */
  #entries: number[] = [];

  /** Tells that `count` requests entered the batch, and how many wait still. */
  entered(count: number, waiting: number, now: number): void {
    if (waiting === 0) this.#entries = [];
    else if (count > 0) this.#entries = [...this.#entries, ...new Array<number>(count).fill(now)].slice(-KEPT);
  }

  /** Milliseconds after which `waiting` requests will have entered at the present pace; null while it is not known. */
  msFor(waiting: number, now: number): number | null {
    const [first] = this.#entries;
    return first === undefined ? null : (waiting * (now - first)) / this.#entries.length;
  }
}
