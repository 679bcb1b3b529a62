/**
 * The labeling page. Keys and buttons act on the query on stage; the outbox carries answers to the server; the deck
 * holds what comes next. A key press never waits for the network: the next pair is there already.
 */

import { Deck } from "./deck.js";
import { Given } from "./given.js";
import { describe, listen } from "./keys.js";
import { Outbox } from "./outbox.js";
import * as panel from "./panel.js";
import { Presence } from "./presence.js";
import { Away, call, signedIn } from "./session.js";

const SPEEDS = { slow: 0.5, normal: 1, fast: 2 };
const ANSWERS = new Set(["left", "right", "tie", "incomparable"]);
const STANDS = new Set(["ok", "late", "extra", "same"]);
const [POLL_MS, DOZE_MS, UNDO_WAIT_MS] = [1000, 5000, 3000];

class Labeling {
  constructor(run) {
    this.run = run;
    this.page = crypto.randomUUID?.() ?? `page-${Date.now()}-${Math.floor(Math.random() * 1e9)}`;
    this.outbox = new Outbox(`${run.run}/${run.labeler}`);
    this.deck = new Deck(panel.stages());
    this.presence = new Presence();
    this.given = new Given({ history: run.history, unsent: this.outbox.bodies, depth: run.undo_depth });
    this.undoing = 0;
    this.lastUndo = Promise.resolve();
    this.note = "";
    this.strength = "clear";
    this.#wire();
    this.act(localStorage.getItem("rlhp/speed") ?? "normal");
    this.outbox.flush();
    this.fill();
  }

  #wire() {
    this.outbox.addEventListener("delivered", ({ detail }) => this.#delivered(detail));
    this.outbox.addEventListener("delayed", ({ detail }) => this.#failed(detail.error));
    this.deck.addEventListener("ready", () => this.show());
    this.deck.addEventListener("stopped", () => panel.paused(true));
    this.deck.addEventListener("unplayable", ({ detail }) => this.#unplayable(detail));
    this.presence.addEventListener("sleep", () => this.#sleep());
    this.presence.addEventListener("wake", () => this.#wake());
    setInterval(() => this.#heartbeat(), 1000 * this.run.heartbeat_seconds);
    addEventListener("pagehide", () => this.#leave());
    addEventListener("pageshow", (event) => event.persisted && this.fill({ afresh: true }));
    listen((action, event) => this.act(action, event));
    panel.onNote((text) => this.#noted(text));
    requestAnimationFrame(() => this.#tick());
  }

  /** What a key or button stands for. */
  act(action, event) {
    if (ANSWERS.has(action)) return this.answer(action, event?.shiftKey ? "slight" : this.strength);
    if (action in SPEEDS) return this.#speed(action);
    const pair = this.deck.onStage;
    if (action === "skip") return this.skip();
    if (action === "undo") return this.undo();
    if (action === "pause" && pair) return this.#pause(pair);
    if (action === "replay" && pair) return (pair.restart(), panel.paused(false));
    if (action === "note") return panel.askForNote(this.note);
    if (action === "strength") return this.#strength(this.strength === "clear" ? "slight" : "clear");
    if (action === "help") return panel.showHelp();
  }

  /** Show the first query if it is not on stage yet. */
  async show() {
    const lease = this.deck.first;
    const pair = this.deck.onStage;
    if (!pair) return panel.stage(lease || !this.waiting ? "loading" : "empty");
    if (pair.visible) return;
    panel.stage("playing", lease);
    panel.paused(false);
    await pair.show();
    if (this.deck.onStage !== pair) return;
    this.deck.first.shownAt ??= performance.now();
    panel.seen(lease);
  }

  answer(choice, strength) {
    const lease = this.#judged();
    if (!lease) return;
    const { query, rev } = lease;
    const body = {
      page: this.page,
      query,
      token: lease.token,
      rev,
      choice,
      strength: this.run.strength && (choice === "left" || choice === "right") ? strength : null,
      note: this.note,
      latency_ms: Math.round(performance.now() - lease.shownAt),
      replays: this.deck.onStage?.restarts ?? 0,
    };
    this.given.add(lease);
    this.#settle(`${query}/${rev}`, "/api/answers", body);
    panel.answered(choice, body.strength);
  }

  skip() {
    const lease = this.#judged();
    if (!lease) return;
    this.#settle(`${lease.query}/skip`, "/api/skips", { page: this.page, query: lease.query, token: lease.token });
    panel.say("Skipped: somebody else will be asked.");
  }

  /** The query a key speaks of: nobody can have judged what was never on screen, or what an undo is about to replace. */
  #judged() {
    if (!this.undoing) return this.deck.first?.shownAt ? this.deck.first : undefined;
    panel.say("One moment: an answer is being taken back.");
  }

  #settle(id, path, body) {
    this.deck.shift();
    this.show();
    this.#noted("");
    this.#strength("clear");
    this.outbox.put(id, path, body);
  }

  /** Take the newest answer back and show its query again. Pressed twice, it takes two, one after the other. */
  undo() {
    this.undoing += 1;
    this.lastUndo = this.lastUndo.then(() => this.#undoOne()).finally(() => (this.undoing -= 1));
  }

  /** An answer still under way is waited for. The server is told which one is meant, so asking again is harmless. */
  async #undoOne() {
    try {
      await Promise.race([this.outbox.flush(), new Promise((resolve) => setTimeout(resolve, UNDO_WAIT_MS))]);
      if (this.outbox.size) return panel.say("Undo has to wait: your last answer has not reached the server yet.");
      const { newest } = this.given;
      if (!newest) return panel.say("There is no answer left to undo.");
      const reply = await call("/api/undo", { page: this.page, ...newest });
      this.given.remove(newest);
      panel.online();
      if (!reply.lease) return panel.say(reply.message);
      this.#offStage();
      this.deck.unshift({ ...reply.lease, previous: reply.choice });
      this.show();
      panel.say("Taken back: answer it again.");
    } catch (error) {
      this.#failed(error);
    }
  }

  /** What is on stage makes room, and will be shown from its start when its turn comes again. */
  #offStage() {
    const pair = this.deck.onStage;
    if (!pair?.visible) return;
    pair.leaveStage();
    delete this.deck.first.shownAt;
  }

  /** Ask the server for queries until this page holds two: one to show, one to fetch ahead. */
  async fill({ afresh = false } = {}) {
    clearTimeout(this.poll);
    if (this.filling) return void (this.again = { afresh: afresh || this.again?.afresh });
    this.filling = true;
    try {
      const reply = await call("/api/leases", { page: this.page });
      const unseen = this.presence.asleep && !this.deck.first && reply.leases.length; // they are for others
      if (unseen) await call("/api/leases/release", { page: this.page });
      const open = ({ query, rev }) => !this.outbox.has(`${query}/${rev}`); // by no answer that is on its way
      this.deck.merge(unseen ? [] : reply.leases.filter(open), { afresh });
      this.waiting = unseen ? panel.READY : reply.waiting;
      panel.progress(reply.progress);
      panel.waiting(this.waiting);
      panel.online();
      this.show();
    } catch (error) {
      this.#failed(error);
    } finally {
      this.filling = false;
    }
    const { again } = this;
    this.again = undefined;
    if (again) return this.fill(again);
    if (this.deck.leases.length < 2 && !this.presence.asleep) {
      this.poll = setTimeout(() => this.fill(), POLL_MS * (0.75 + Math.random() / 2));
    }
  }

  #delivered({ entry, reply, error }) {
    panel.unsent(this.outbox.size);
    if (!STANDS.has(reply?.status)) this.given.remove(entry.body);
    if (error) panel.say(`The server refused an answer: ${error.message}`);
    if (reply) panel.result(reply);
    if (reply?.progress) panel.progress(reply.progress);
    if (entry.body.page === this.page) this.fill();
  }

  #failed(error) {
    panel.unsent(this.outbox.size);
    if (error instanceof Away) return panel.offline(error.message, this.outbox.size);
    if (error.status === 401) return this.#signInAgain();
    panel.say(error.message);
  }

  /** Answers wait meanwhile; those of somebody else stay in this browser until that labeler is back. */
  async #signInAgain() {
    if (this.outbox.held) return;
    this.outbox.held = true;
    const run = await signedIn({ onAway: (error) => panel.offline(error.message, this.outbox.size) });
    if (run.labeler !== this.run.labeler) return location.reload();
    this.outbox.held = false;
    this.outbox.flush();
    this.fill();
  }

  /** A lease whose clips do not come: leased anew it may have others; a second time it is left to somebody else. */
  #unplayable({ lease, error }) {
    if (error instanceof Away) {
      this.#failed(error);
      setTimeout(() => this.deck.prepare(), POLL_MS);
    } else if (this.missing === lease.query) {
      panel.say(`A query was skipped: ${error.message}`);
      this.outbox.put(`${lease.query}/skip`, "/api/skips", { page: this.page, query: lease.query, token: lease.token });
    } else {
      this.missing = lease.query;
      setTimeout(() => this.fill(), POLL_MS);
    }
  }

  async #heartbeat() {
    if (!this.presence.here || !this.deck.leases.length) return;
    try {
      const { extended } = await call("/api/leases/extend", { page: this.page });
      panel.online();
      if (extended < Math.min(2, this.deck.leases.length)) this.fill();
    } catch (error) {
      this.#failed(error);
    }
  }

  #sleep() {
    clearTimeout(this.poll);
    this.deck.onStage?.pause();
    panel.asleep(true);
    this.#doze();
  }

  /** Nobody is there and nothing on stage: say when that is worth a key, without taking queries from others. */
  async #doze() {
    while (this.presence.asleep && !this.deck.first) {
      try {
        const facts = await call("/api/progress");
        panel.progress(facts);
        if (this.presence.asleep) panel.waiting(facts.waiting ?? panel.READY);
        panel.online();
      } catch (error) {
        this.#failed(error);
      }
      await new Promise((resolve) => setTimeout(resolve, DOZE_MS));
    }
  }

  #wake() {
    panel.asleep(false);
    this.deck.onStage?.play();
    this.fill({ afresh: true });
  }

  #leave() {
    const body = new Blob([JSON.stringify({ page: this.page })], { type: "application/json" });
    navigator.sendBeacon("/api/leases/release", body);
  }

  #pause(pair) {
    pair.paused ? pair.play() : pair.pause();
    panel.paused(pair.paused);
  }

  #speed(name) {
    this.deck.setSpeed(SPEEDS[name] ?? 1);
    localStorage.setItem("rlhp/speed", name);
    panel.speed(name);
  }

  #strength(strength) {
    this.strength = strength;
    panel.strength(strength);
  }

  #noted(text) {
    this.note = text;
    panel.note(text);
  }

  #tick() {
    panel.elapsed(this.deck.onStage?.elapsed ?? 0);
    requestAnimationFrame(() => this.#tick());
  }
}

const run = await signedIn({ onAway: (error) => panel.offline(error.message, 0) });
panel.introduce(run);
describe(document.querySelector("#help dl"), run);
new Labeling(run);
