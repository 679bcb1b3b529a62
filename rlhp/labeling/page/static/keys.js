/** Which key does what. The list is also what the help shows. */

export const KEYS = [
  { keys: ["ArrowLeft"], shown: "←", action: "left", help: "Left is better" },
  { keys: ["ArrowRight"], shown: "→", action: "right", help: "Right is better" },
  { keys: ["ArrowUp"], shown: "↑", action: "tie", help: "Equally good" },
  { keys: ["ArrowDown"], shown: "↓", action: "incomparable", help: "Cannot tell" },
  { keys: ["s"], shown: "S", action: "skip", help: "Skip: leave it to somebody else" },
  { keys: ["z", "Backspace"], shown: "Z", action: "undo", help: "Undo, up to ten answers back" },
  { keys: [" "], shown: "Space", action: "pause", help: "Pause or go on" },
  { keys: ["r"], shown: "R", action: "replay", help: "Play both from the start" },
  { keys: ["1"], shown: "1", action: "slow", help: "Half speed" },
  { keys: ["2"], shown: "2", action: "normal", help: "Normal speed" },
  { keys: ["3"], shown: "3", action: "fast", help: "Double speed" },
  { keys: ["n"], shown: "N", action: "note", help: "Add a note to your answer" },
  { keys: ["?"], shown: "?", action: "help", help: "This list" },
];

export const SLIGHT = { shown: "Shift + arrow", help: "Slightly better" };

const ACTIONS = new Map(KEYS.flatMap(({ keys, action }) => keys.map((key) => [key, action])));
const ONCE = new Set(["left", "right", "tie", "incomparable", "skip", "undo", "pause"]);

/**
 * Calls `act(action, event)` for every key that means something. Keys belong to a text field, a dialog or the
 * browser where one of these has the focus or a modifier is held; Space and Enter belong to a focused button.
 */
export function listen(act) {
  document.addEventListener("keydown", (event) => {
    const action = ACTIONS.get(event.key.length === 1 ? event.key.toLowerCase() : event.key);
    if (!action || event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    const focused = event.target.closest?.("input, textarea, select, button, a");
    // A dialog that was just closed can keep the focus for a frame: its fields do not count.
    if (focused && !focused.closest("dialog") && (!focused.matches("button, a") || event.key === " ")) return;
    event.preventDefault();
    if (event.repeat && ONCE.has(action)) return;
    act(action, event);
  });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("button[data-action]");
    if (!button) return;
    // A click leaves the focus on the button, and the next Space would press it again instead of pausing.
    if (event.detail > 0) button.blur();
    act(button.dataset.action, event);
  });
}

/** Rows of the help list. */
export function describe(list, { strength }) {
  const rows = strength ? [...KEYS.slice(0, 4), SLIGHT, ...KEYS.slice(4)] : KEYS;
  for (const { shown, help } of rows) {
    const key = document.createElement("dt");
    const meaning = document.createElement("dd");
    key.append(Object.assign(document.createElement("kbd"), { textContent: shown }));
    meaning.textContent = help;
    list.append(key, meaning);
  }
}
