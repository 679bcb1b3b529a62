/** The admin view: who answers how, and every answer with its two clips, to look at and to correct. */

import { call, fetchBlob, signedIn } from "./session.js";

const PAGE = 20;
const REFRESH_MS = 5000;
const PRESENT_SECONDS = 60;
const WORDS = { first: "First", second: "Second", tie: "Equally good", incomparable: "Cannot tell" };

const element = (id) => document.getElementById(id);
const filter = element("filter");
let offset = 0;
let total = 0;

/** An element with text, a class and children, none of it markup. */
function made(tag, { text, name, ...rest } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), rest);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  node.append(...children);
  return node;
}

const percent = (share) => (share == null ? "–" : `${Math.round(100 * share)} %`);
const seconds = (value) => (value == null ? "–" : `${value.toFixed(1)} s`);

async function showLabelers() {
  const { labelers } = await call("/api/admin/labelers");
  element("labelers").tBodies[0].replaceChildren(...labelers.map(labelerRow));
  const names = filter.elements.labeler;
  const known = new Set([...names.options].map((option) => option.value));
  names.append(...labelers.filter((one) => !known.has(one.name)).map((one) => new Option(one.name, one.name)));
}

function labelerRow(one) {
  const gold = one.gold_asked ? `${one.gold_right} of ${one.gold_asked}` : "–";
  const number = (text) => made("td", { text, name: "number" });
  return made(
    "tr",
    {},
    made("th", { text: one.name, scope: "row" }),
    number(one.ok),
    number(one.late),
    number(one.extra),
    number(one.skipped),
    number(gold),
    number(percent(one.agreement)),
    made("td", {}, balance(one.side_bias)),
    number(seconds(one.median_seconds)),
    number(one.weight.toFixed(2)),
    made("td", {}, stateOf(one)),
  );
}

/** `ok`, `watch` or `paused`, why, and whether somebody is there now. */
function stateOf(one) {
  const state = made("span", { text: one.state, name: `state ${one.state}`, title: one.reason });
  const here = one.idle_seconds != null && one.idle_seconds < PRESENT_SECONDS;
  return made("span", {}, state, made("span", { text: here ? " here now" : "", name: "quiet" }));
}

/** Share of `left` among the answers that chose a side: a dot between left and right, the middle marked. */
function balance(left) {
  if (left == null) return "–";
  const meter = made("span", { name: "balance", title: `${percent(left)} left` }, made("i"));
  meter.setAttribute("role", "img");
  meter.setAttribute("aria-label", `${percent(left)} left`);
  meter.firstChild.style.left = percent(1 - left).replace(" ", "");
  return meter;
}

async function showLog() {
  const asked = new URLSearchParams({ offset, limit: PAGE });
  for (const { name, value } of [filter.elements.labeler, filter.elements.answer]) if (value) asked.set(name, value);
  const reply = await call(`/api/admin/preferences?${asked}`);
  total = reply.total;
  update(element("log"), reply.items);
  element("none").hidden = total > 0;
  const last = Math.min(total, offset + PAGE);
  element("range").textContent = total ? `${offset + 1} to ${last} of ${total}` : "";
  element("newer").disabled = offset === 0;
  element("older").disabled = last >= total;
}

/** Entries that are still listed stay as they are, so an opened pair of clips goes on playing. */
function update(list, items) {
  const old = new Map([...list.children].map((entry) => [entry.dataset.key, entry]));
  const key = (item) => JSON.stringify([item.query, item.labeler, item.choice, item.at]);
  const entries = items.map((item) => old.get(key(item)) ?? logEntry(item, key(item)));
  for (const gone of old.values()) if (!entries.includes(gone)) close(gone);
  if (entries.length !== list.children.length || entries.some((entry, at) => entry !== list.children[at])) {
    list.replaceChildren(...entries);
  }
}

function logEntry(item, key) {
  const slightly = item.strength !== null && item.strength < 1 ? ", slightly" : "";
  const details = made(
    "details",
    {},
    made(
      "summary",
      {},
      made("span", { text: WORDS[item.choice] + slightly, name: "said" }),
      made("span", { text: item.labeler, name: "by" }),
      made("span", { text: item.at ? new Date(item.at).toLocaleString() : "", name: "quiet" }),
      made("span", { text: item.latency_ms == null ? "" : seconds(item.latency_ms / 1000), name: "quiet" }),
      made("span", { text: item.note ? "note" : "", name: "mark" }),
    ),
  );
  details.addEventListener("toggle", () => (details.open ? open(details, item) : close(details)));
  const entry = made("li", {}, details);
  entry.dataset.key = key;
  return entry;
}

function open(details, item) {
  const clips = made("div", { name: "clips" });
  const body = made("div", { name: "body" }, clips);
  for (const side of ["first", "second"]) clips.append(clipOf(item, side));
  if (item.note) body.append(made("blockquote", { text: item.note }));
  body.append(correction(item), made("p", { text: `query ${item.query}`, name: "quiet" }));
  details.append(body);
}

function clipOf(item, side) {
  const video = made("video", { muted: true, loop: true, playsInline: true, autoplay: true });
  const where = item.shown_left ? (item.shown_left === side ? ", shown left" : ", shown right") : "";
  const figure = made("figure", {}, video, made("figcaption", { text: `${WORDS[side]}${where}` }));
  figure.classList.toggle("preferred", item.choice === side);
  video.setAttribute("aria-label", `${WORDS[side]} clip`);
  const gone = () => video.replaceWith(made("p", { text: "This clip is no longer kept.", name: "gone quiet" }));
  if (!item.clips) gone();
  else fetchBlob(item.clips[side]).then((blob) => (video.src = URL.createObjectURL(blob)), gone);
  return figure;
}

function correction(item) {
  const buttons = Object.keys(WORDS).map((answer) => {
    const button = made("button", { text: WORDS[answer], type: "button" });
    button.setAttribute("aria-pressed", answer === item.choice);
    button.addEventListener("click", () => correct(item, answer));
    return button;
  });
  const group = made("div", { name: "correct" }, made("span", { text: "Correct to", name: "quiet" }), ...buttons);
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", "Correct this answer");
  return group;
}

async function correct(item, answer) {
  const body = { query: item.query, labeler: item.labeler, answer };
  await tried(async () => {
    const reply = await call("/api/admin/preferences/correct", body);
    if (!["ok", "same"].includes(reply.status)) throw new Error(reply.message ?? reply.status);
    await showLog();
  });
}

function close(entry) {
  for (const video of entry.querySelectorAll("video")) URL.revokeObjectURL(video.src);
  entry.querySelector(".body")?.remove();
}

async function tried(what) {
  const notice = element("connection");
  try {
    await what();
    notice.hidden = true;
  } catch (error) {
    if (error.status === 401) return signedIn().then(() => tried(what));
    notice.textContent = error.message;
    notice.hidden = false;
  }
}

function turn(pages) {
  offset = Math.max(0, Math.min(offset + pages * PAGE, total - 1));
  tried(showLog);
}

element("newer").addEventListener("click", () => turn(-1));
element("older").addEventListener("click", () => turn(1));
filter.addEventListener("change", () => {
  offset = 0;
  tried(showLog);
});

const run = await signedIn();
element("run").textContent = run.run;
element("env").textContent = run.env;
document.title = `${run.run} · admin`;
for (;;) {
  if (!document.hidden) await tried(() => Promise.all([showLabelers(), showLog()]));
  await new Promise((resolve) => setTimeout(resolve, REFRESH_MS));
}
