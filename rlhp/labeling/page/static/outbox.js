/**
 * Answers on their way to the server. Each is kept in localStorage until the server has said what became of it, so
 * it survives a server, a Redis or a tab that goes away. Sending one twice is harmless: the server knows it by its
 * revision. Order is kept; while the server is away the first is tried again, ever more slowly.
 */

import { Away, call } from "./session.js";

const RETRY_MS = [300, 600, 1200, 2400, 5000];

export class Outbox extends EventTarget {
  /** `scope` names run and labeler; answers left by an earlier visit under the same scope are sent too. */
  constructor(scope) {
    super();
    this.prefix = `rlhp/unsent/${scope}/`;
    this.entries = restored(this.prefix);
    this.failures = 0;
    this.sending = null;
    this.held = false; // while somebody signs in: who that will be is not known
    addEventListener("online", () => this.flush());
  }

  get size() {
    return this.entries.size;
  }

  /** What is on its way, oldest first. */
  get bodies() {
    return [...this.entries.values()].map(({ body }) => body);
  }

  /** Whether this is still on its way. */
  has(id) {
    return this.entries.has(id);
  }

  /** Keep this until it is delivered, and begin to send it. `id` names it: the same id is the same entry. */
  put(id, path, body) {
    const entry = { path, body };
    this.entries.set(id, entry);
    keep(this.prefix + id, JSON.stringify(entry));
    this.flush();
  }

  /** Send what there is, in order. Resolves when nothing is left, the server is away or nothing may be sent. */
  async flush() {
    if (this.held) return;
    clearTimeout(this.timer);
    this.sending ??= this.#sendAll().finally(() => (this.sending = null));
    return this.sending;
  }

  async #sendAll() {
    while (this.entries.size) {
      if (this.held) return;
      const [id, entry] = this.entries.entries().next().value;
      try {
        const reply = await call(entry.path, entry.body);
        this.#done(id, { entry, reply });
      } catch (error) {
        if (error instanceof Away || error.status === 401) return this.#later(error);
        this.#done(id, { entry, error });
      }
    }
  }

  #done(id, detail) {
    this.failures = 0;
    this.entries.delete(id);
    localStorage.removeItem(this.prefix + id);
    this.dispatchEvent(new CustomEvent("delivered", { detail }));
  }

  #later(error) {
    const wait = RETRY_MS[Math.min(this.failures, RETRY_MS.length - 1)];
    this.failures += 1;
    this.timer = setTimeout(() => this.flush(), wait);
    this.dispatchEvent(new CustomEvent("delayed", { detail: { error } }));
  }
}

function restored(prefix) {
  const names = Object.keys(localStorage).filter((name) => name.startsWith(prefix));
  return new Map(names.sort().map((name) => [name.slice(prefix.length), JSON.parse(localStorage.getItem(name))]));
}

function keep(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // Storage that is full or forbidden: the entry still lives as long as this tab.
  }
}
