/**
 * The queries this page holds, in the order in which they are shown. The first is on stage, and the second is
 * fetched and decoded meanwhile, so that it plays at once when its turn comes.
 */

import { Away } from "./session.js";
import { Pair } from "./player.js";

const AHEAD = 2;
const REMEMBERED = 50;

export class Deck extends EventTarget {
  constructor(stages) {
    super();
    this.leases = [];
    this.given = []; // what was answered or skipped here, so that a reply under way does not bring it back
    this.pairs = new Map(); // query -> {pair, token, ready}
    this.spare = Array.from({ length: AHEAD + 1 }, () => new Pair(stages));
    for (const pair of this.spare) pair.addEventListener("stopped", () => this.dispatchEvent(new Event("stopped")));
    this.speed = 1;
  }

  get first() {
    return this.leases[0];
  }

  /** The pair of the first lease, or nothing while it is still being fetched. */
  get onStage() {
    const held = this.first && this.pairs.get(this.first.query);
    return held?.ready ? held.pair : undefined;
  }

  /**
   * What the server says this page holds now. The query on stage stays even if its lease ran out, since a late
   * answer may still count; with `afresh` it goes too.
   */
  merge(leases, { afresh = false } = {}) {
    const news = new Map(leases.filter((lease) => !this.given.includes(name(lease))).map((each) => [each.query, each]));
    const keep = (lease, at) => news.has(lease.query) || lease.undone || (at === 0 && !afresh);
    this.leases = this.leases.filter(keep).map((lease) => ({ ...lease, ...news.get(lease.query) }));
    const known = new Set(this.leases.map((lease) => lease.query));
    this.leases.push(...[...news.values()].filter((lease) => !known.has(lease.query)));
    this.prepare();
  }

  /** The first lease is settled: the next one moves up. */
  shift() {
    const lease = this.leases.shift();
    this.given = [...this.given, name(lease)].slice(-REMEMBERED);
    this.prepare();
    return lease;
  }

  /** A query that came back: it is shown before all others. */
  unshift(lease) {
    this.leases = [{ ...lease, undone: true }, ...this.leases.filter((other) => other.query !== lease.query)];
    this.prepare();
  }

  /** Give every lease that is near its turn a pair of videos, and take those of all others away. */
  prepare() {
    const near = this.leases.slice(0, AHEAD);
    for (const [query, held] of this.pairs) {
      if (near.some((lease) => lease.query === query)) continue;
      this.pairs.delete(query);
      held.pair.clear();
      this.spare.push(held.pair);
    }
    for (const lease of near) if (!this.pairs.has(lease.query)) this.#load(lease);
  }

  async #load(lease) {
    const held = { pair: this.spare.shift(), ready: false };
    this.pairs.set(lease.query, held);
    try {
      await held.pair.load([lease.left, lease.right], { speed: this.speed });
      held.ready = true;
    } catch (error) {
      if (this.pairs.get(lease.query) !== held) return;
      this.pairs.delete(lease.query);
      held.pair.clear();
      this.spare.push(held.pair);
      if (!(error instanceof Away)) this.leases = this.leases.filter((other) => other.query !== lease.query);
      this.dispatchEvent(new CustomEvent("unplayable", { detail: { lease, error } }));
    }
    if (this.pairs.get(lease.query) === held) this.dispatchEvent(new CustomEvent("ready", { detail: { lease } }));
  }

  setSpeed(rate) {
    this.speed = rate;
    for (const { pair } of this.pairs.values()) pair.speed = rate;
  }
}

function name(lease) {
  return `${lease.query} ${lease.token}`;
}
