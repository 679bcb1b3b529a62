/** Whether somebody is there: the tab is visible, and was touched within the last two minutes. */

const IDLE_MS = 120_000;
const SIGNS = ["keydown", "pointerdown", "pointermove", "wheel", "touchstart"];

export class Presence extends EventTarget {
  constructor() {
    super();
    this.asleep = false;
    this.touched = performance.now();
    for (const sign of SIGNS) addEventListener(sign, (event) => this.#touch(event), { capture: true, passive: false });
    document.addEventListener("visibilitychange", () => this.check());
    setInterval(() => this.check(), 1000);
  }

  get here() {
    return !document.hidden && performance.now() - this.touched < IDLE_MS;
  }

  /** Tells of falling asleep. A hidden tab may come back at once, so it sleeps only once it is idle as well. */
  check() {
    if (this.asleep || performance.now() - this.touched < IDLE_MS) return;
    this.asleep = true;
    this.dispatchEvent(new Event("sleep"));
  }

  #touch(event) {
    this.touched = performance.now();
    if (!this.asleep) return;
    this.asleep = false;
    if (event.type === "keydown") {
      event.preventDefault(); // the key that wakes the page answers nothing
      event.stopImmediatePropagation();
    }
    this.dispatchEvent(new Event("wake"));
  }
}
