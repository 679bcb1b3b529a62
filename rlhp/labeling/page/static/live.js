/** The live view: how the run is doing, and what the policy does now with the reward that is predicted for it. */

import { draw, moveCursor, short } from "./chart.js";
import { Away, call, fetchBlob, signedIn } from "./session.js";

const METRICS_MS = 3000;
const POLICY_MS = 20_000;
const MOST_ROWS = 20_000;

/** Title, unit, and the metrics that share the chart. True returns are sent to admins only. */
const CHARTS = [
  ["Predicted return", "", { predicted: "predicted_return_mean" }],
  ["True return", "admins only", { training: "env_runners/episode_return_mean", test: "eval/episode_return_mean" }],
  [
    "Predicted before it was learned",
    "share of answers",
    { newest: "reward/fresh_accuracy", lowest: "reward/fresh_accuracy_low", highest: "reward/fresh_accuracy_high" },
  ],
  [
    "The same by age of the clips",
    "share of answers",
    { younger: "reward/fresh_accuracy_young", older: "reward/fresh_accuracy_old" },
  ],
  ["Ranked right", "share", { "held out": "reward/heldout_accuracy", training: "reward/train_accuracy" }],
  ["Loss of the reward", "nats", { validation: "reward/val_loss", training: "reward/train_loss" }],
  ["Disagreement of the members", "", { disagreement: "reward/disagreement" }],
  ["Predicted reward per step", "", { mean: "reward/predicted_mean", deviation: "reward/predicted_std" }],
  ["Answers", "", { answered: "labels/answered", asked: "labels/asked" }],
  ["Answers per minute", "", { rate: "labels/per_minute" }],
  ["Reward version", "", { version: "reward/version" }],
  ["True and predicted return", "correlation, admins only", { correlation: "return_correlation" }],
];
const TILES = [
  ["Env steps", "env_steps"],
  ["Phase", "phase"],
  ["Reward version", "reward/version"],
  ["Answers", "labels/answered"],
  ["Per minute", "labels/per_minute"],
  ["Fresh accuracy", "reward/fresh_accuracy"],
  ["Alarms", "alarms/names"],
];

const element = (id) => document.getElementById(id);
const rows = [];
let next = 0;

async function readMetrics() {
  const reply = await call(`/api/live/metrics?since=${next}`);
  if (reply.next < next) rows.length = 0; // another file: the run began anew
  next = reply.next;
  rows.push(...reply.rows);
  rows.splice(0, rows.length - MOST_ROWS);
  if (reply.rows.length) show();
  element("empty").hidden = rows.length > 0;
}

function show() {
  const figures = element("charts");
  CHARTS.forEach(([title, unit, columns], at) => {
    const figure = figures.children[at] ?? figures.appendChild(document.createElement("figure"));
    const lines = Object.entries(columns).map(([name, column]) => ({ name, points: points(column) }));
    draw(figure, { title, unit, lines });
  });
  element("tiles").replaceChildren(...TILES.map(([name, column]) => tile(name, newest(column))));
}

/** [env steps, value] of every row that has one; a resumed run repeats steps, and the later rows win. */
function points(column) {
  const found = [];
  for (const row of rows) {
    if (typeof row[column] !== "number" || typeof row.env_steps !== "number") continue;
    while (found.length && found.at(-1)[0] >= row.env_steps) found.pop();
    found.push([row.env_steps, row[column]]);
  }
  return found;
}

function newest(column) {
  return rows.findLast((row) => row[column] != null)?.[column];
}

function tile(name, value) {
  const made = document.createElement("div");
  const text = typeof value === "number" ? short(value) : (value ?? "–");
  made.append(
    Object.assign(document.createElement("dt"), { textContent: name }),
    Object.assign(document.createElement("dd"), { textContent: text }),
  );
  return made;
}

const shownPolicy = { key: "", predicted: null };

async function readPolicy() {
  const reply = await call("/api/live/policy");
  const key = JSON.stringify(reply);
  if (!reply.video || key === shownPolicy.key) return;
  const video = element("policy-video");
  const blob = await fetchBlob(reply.video);
  URL.revokeObjectURL(video.src);
  video.src = URL.createObjectURL(blob);
  Object.assign(shownPolicy, { key, predicted: reply.predicted });
  element("policy").hidden = false;
  const facts = [
    [reply.env_steps, (steps) => `after ${short(steps)} env steps`],
    [reply.reward_version, (version) => `reward version ${version}`],
  ];
  element("policy-facts").textContent = facts.flatMap(([value, say]) => (value == null ? [] : [say(value)])).join(", ");
  drawReward(reply.predicted);
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
}

/** Predicted reward over the frames of the video. */
function drawReward(predicted) {
  const lines = [{ name: "predicted reward", points: (predicted ?? []).map((value, at) => [at, value]) }];
  const about = { title: "Predicted reward", unit: "per step, at the end", xName: "frame", width: 640 };
  draw(element("policy-reward"), { ...about, lines });
  element("now").hidden = !predicted;
}

/** Moves the cursor with the video. */
function follow() {
  const video = element("policy-video");
  const values = shownPolicy.predicted;
  if (values && video.duration > 0) {
    const share = Math.min(1, video.currentTime / video.duration);
    moveCursor(element("policy-reward"), share);
    element("policy-now").textContent = short(values[Math.min(values.length - 1, Math.floor(share * values.length))]);
  }
  requestAnimationFrame(follow);
}

async function every(milliseconds, read) {
  for (;;) {
    try {
      if (!document.hidden) await read();
      element("connection").hidden = true;
    } catch (error) {
      if (error.status === 401) await signedIn();
      element("connection").textContent = error instanceof Away ? `No connection: ${error.message}.` : error.message;
      element("connection").hidden = false;
    }
    await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}

const run = await signedIn();
element("run").textContent = run.run;
element("env").textContent = run.env;
document.title = `${run.run} · live`;
for (const link of document.querySelectorAll("[data-admin]")) link.hidden = !run.admin;
every(METRICS_MS, readMetrics);
every(POLICY_MS, readPolicy);
follow();
