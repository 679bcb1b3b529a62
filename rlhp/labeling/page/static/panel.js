/** Everything the labeling page writes on itself. Text from the server enters as text, never as markup. */

const element = (id) => document.getElementById(id);
const QUESTION = "Which clip does the task better?";
const SAID = { left: "Left", right: "Right", tie: "Equally good", incomparable: "Cannot tell" };
const WORTH_SAYING = new Set(["extra", "conflict", "denied", "gone"]);

const OVER = new Set(["closed", "spent", "teachers"]);
const REASONS = {
  missing: "This run has not begun",
  starting: "This run is starting",
  closed: "This run is over. Thank you",
  gone: "This run stands still",
  draining: "This run is ending",
  teachers: "Teachers answer this run",
  clips: "Clips are being drawn",
  ready: "Clips are ready",
  others: "Others are at work",
  collecting: "Collecting segments",
  spent: "All queries are asked. Thank you",
  answered: "You are up to date",
  empty: "The next queries are being chosen",
  paused: "You are asked nothing for the moment",
};

/** What a page waits for that nobody looks at, while there is something to ask. */
export const READY = { reason: "ready", detail: "press any key, or tap, to see them" };

/** The two elements that clips are played in. */
export function stages() {
  return [...document.querySelectorAll(".stage")];
}

/** Who is asked what: the first sentence is the question, the rest decides where that is not enough. */
export function introduce(run) {
  document.title = `${run.run} · label`;
  element("run").textContent = run.run;
  element("env").textContent = run.env ?? "";
  element("labeler").textContent = run.labeler;
  const [, question, criteria] = run.instruction.match(/^(.+?[.?!])\s+(.+)$/s) ?? [null, run.instruction || QUESTION, ""];
  element("instruction").textContent = question;
  element("criteria").textContent = criteria;
  element("criteria").hidden = !criteria;
  element("strength").hidden = !run.strength;
  for (const link of document.querySelectorAll("[data-admin]")) link.hidden = !run.admin;
}

// In a hand it is cut after two lines until it is touched.
element("criteria").addEventListener("click", ({ target }) => target.classList.toggle("whole"));

/** One line for everybody, read aloud by screen readers. */
export function say(text) {
  element("status").textContent = text;
}

/** `playing` a lease, `loading` one, or `empty`. */
export function stage(state, lease) {
  document.body.dataset.stage = state;
  document.body.dataset.query = lease?.query ?? "";
  for (const button of document.querySelectorAll("#answers button, [data-needs-query]")) {
    button.disabled = state !== "playing";
    button.classList.toggle("previous", button.dataset.action === lease?.previous);
  }
  element("pair").hidden = state === "empty";
  element("waiting").hidden = state !== "empty";
}

/** The first frame of this lease was on screen: from now on it can be answered. */
export function seen(lease) {
  document.body.dataset.seen = lease.query;
}

/** What there is to wait for, as the server names it: `{reason, detail}`. "120/500" in the detail becomes a bar. */
export function waiting(what) {
  if (!what) return;
  const [, done, all] = what.detail.match(/(\d+)\/(\d+)/) ?? [];
  const reason = REASONS[what.reason] ?? what.reason;
  const detail = all ? `${done} of ${all}` : sentence(what.detail);
  set("reason", reason);
  set("detail", detail === reason ? "" : detail);
  element("gathered").hidden = !all;
  if (all) Object.assign(element("gathered"), { max: all, value: done });
  element("stay").hidden = OVER.has(what.reason);
}

export function progress(facts) {
  if (!facts) return;
  const left = facts.budget == null ? null : Math.max(0, facts.budget - facts.answered);
  set("mine", facts.mine);
  set("answered", facts.answered);
  set("left", left ?? "–");
  set("rate", Number(facts.per_minute ?? 0).toFixed(1));
  const share = facts.budget ? Math.min(1, facts.answered / facts.budget) : 0;
  element("budget-bar").style.transform = `scaleX(${share})`;
}

export function answered(choice, strength) {
  const button = document.querySelector(`#answers [data-action="${choice}"]`);
  button.animate?.([{ opacity: 0.45 }, { opacity: 1 }], { duration: 220 });
  say(`${SAID[choice]}${strength === "slight" ? ", slightly" : ""}.`);
}

/** What the server made of an answer, where that is not what was hoped for. */
export function result(reply) {
  if (WORTH_SAYING.has(reply.status)) say(sentence(reply.message));
}

export function unsent(count) {
  document.body.dataset.unsent = count;
}

/** The server is away: `count` answers wait in this browser. */
export function offline(why, count) {
  const waiting = count ? ` ${count} ${count === 1 ? "answer is" : "answers are"} kept here and will be sent.` : "";
  set("connection", `No connection: ${why}.${waiting}`);
  element("connection").hidden = false;
}

export function online() {
  element("connection").hidden = true;
}

export function asleep(yes) {
  document.body.classList.toggle("asleep", yes);
  element("asleep").hidden = !yes;
  if (yes) say("Paused, since nobody was here. Press any key to go on.");
}

export function paused(yes) {
  const button = document.querySelector('[data-action="pause"]');
  button.setAttribute("aria-pressed", yes);
  document.body.classList.toggle("paused", yes);
}

export function elapsed(share) {
  element("elapsed").style.transform = `scaleX(${share})`;
}

export function speed(name) {
  for (const button of document.querySelectorAll("#speeds button")) {
    button.setAttribute("aria-pressed", button.dataset.action === name);
  }
}

export function strength(which) {
  element("strength").setAttribute("aria-pressed", which === "slight");
}

export function note(text) {
  const button = document.querySelector('[data-action="note"]');
  button.setAttribute("aria-pressed", Boolean(text));
  button.title = text;
}

export function askForNote(text) {
  const dialog = element("note");
  dialog.querySelector("textarea").value = text;
  dialog.showModal();
}

/** Calls `take(text)` when a note is saved. Enter saves, Escape leaves it as it was. */
export function onNote(take) {
  const dialog = element("note");
  const field = dialog.querySelector("textarea");
  const save = (event) => {
    event.preventDefault();
    dialog.close();
    take(field.value.trim());
  };
  dialog.querySelector("form").addEventListener("submit", save);
  dialog.querySelector("[value=cancel]").addEventListener("click", () => dialog.close());
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) save(event);
  });
}

export function showHelp() {
  element("help").showModal();
}

function set(id, value) {
  const text = String(value ?? "–");
  if (element(id).textContent !== text) element(id).textContent = text; // unchanged text is not read aloud again
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1) : "";
}
