/**
 * Two clips side by side, in step: started together, held on their last frame, started together again.
 *
 * A `Pair` is two video elements that lie ready, decoded but unseen, until `show`. Pairs are used again and again
 * with other clips, since a browser gives back the memory of a video element late.
 */

import { Film } from "./film.js";
import { fetchBlob } from "./session.js";

const HOLD_MS = 300;
const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)");

export class Pair extends EventTarget {
  /** `stages`: the two elements to play in, left and right. */
  constructor(stages) {
    super();
    this.stages = stages;
    this.elements = stages.map((stage, side) => this.#element(stage, side));
    this.videos = [...this.elements];
    this.restarts = 0;
    this.visible = false;
  }

  #element(stage, side) {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, playsInline: true, preload: "auto", disableRemotePlayback: true });
    video.setAttribute("aria-label", side ? "Right clip" : "Left clip");
    video.tabIndex = -1;
    video.addEventListener("ended", () => this.#ended());
    stage.append(video);
    return video;
  }

  /** Fetch and decode both clips. Throws Away or Refused, or Error for bytes that are no video. */
  async load(urls, { speed }) {
    const turn = (this.turn = Symbol());
    const blobs = await Promise.all(urls.map(fetchBlob));
    if (turn !== this.turn) return;
    await Promise.all(blobs.map((blob, side) => this.#decode(blob, side, turn)));
    this.speed = speed;
  }

  async #decode(blob, side, turn) {
    if (!blob.type.startsWith("image/")) return decoded(this.videos[side], blob);
    const film = await Film.of(blob);
    if (turn !== this.turn) return film.close();
    this.videos[side] = film;
    film.canvas.setAttribute("role", "img");
    film.canvas.setAttribute("aria-label", this.elements[side].getAttribute("aria-label"));
    film.addEventListener("ended", () => this.#ended());
    this.stages[side].append(film.canvas);
  }

  /** Bring the pair on stage and play it; resolves at its first frame. */
  async show() {
    this.visible = true;
    this.restarts = 0;
    this.videos.forEach((video, side) => {
      this.stages[side].style.setProperty("--ratio", video.videoWidth / video.videoHeight);
      video.classList.add("shown");
    });
    const seen = firstFrame(this.videos[0]);
    this.play();
    await seen;
  }

  /** Make room for another pair; the clips stay ready. */
  leaveStage() {
    this.pause();
    this.visible = false;
    for (const video of this.videos) {
      video.classList.remove("shown");
      video.currentTime = 0;
    }
  }

  /** Off stage; the clips are let go. */
  clear() {
    this.turn = null;
    this.visible = false;
    clearTimeout(this.timer);
    for (const video of this.videos) {
      video.pause();
      video.classList.remove("shown");
      video instanceof Film ? video.close() : forget(video);
    }
    this.videos = [...this.elements];
  }

  play() {
    clearTimeout(this.timer);
    if (this.ended) return this.restart();
    this.paused = false;
    for (const video of this.videos) video.play().catch(() => {}); // a new clip interrupts: nothing is lost
  }

  pause() {
    this.paused = true;
    clearTimeout(this.timer);
    for (const video of this.videos) video.pause();
  }

  restart() {
    this.restarts += 1;
    for (const video of this.videos) video.currentTime = 0;
    this.paused = false;
    clearTimeout(this.timer);
    for (const video of this.videos) video.play().catch(() => {});
  }

  set speed(rate) {
    for (const video of this.videos) video.defaultPlaybackRate = video.playbackRate = rate;
  }

  get ended() {
    return this.videos.every((video) => video.ended);
  }

  /** Share of the longer clip that has been played, 0 to 1. */
  get elapsed() {
    const longer = this.videos[0].duration >= this.videos[1].duration ? this.videos[0] : this.videos[1];
    return longer.duration > 0 ? Math.min(1, longer.currentTime / longer.duration) : 0;
  }

  /** The shorter clip waits for the longer one; then both begin again, unless the viewer asked for less motion. */
  #ended() {
    if (!this.visible || !this.ended) return;
    if (reducedMotion.matches) {
      this.paused = true;
      this.dispatchEvent(new Event("stopped"));
    } else if (!this.paused) {
      this.timer = setTimeout(() => this.restart(), HOLD_MS);
    }
  }
}

function decoded(video, blob) {
  forget(video);
  return new Promise((resolve, reject) => {
    video.onloadeddata = () => resolve();
    video.onerror = () => reject(new Error(`the clip cannot be played: ${video.error?.message || "unknown format"}`));
    video.src = URL.createObjectURL(blob);
    video.load();
  });
}

function forget(video) {
  if (!video.src) return;
  URL.revokeObjectURL(video.src);
  video.onloadeddata = video.onerror = null;
  video.removeAttribute("src");
  video.load();
}

function firstFrame(video) {
  if (!("requestVideoFrameCallback" in video)) {
    return new Promise((resolve) => video.addEventListener("playing", resolve, { once: true }));
  }
  return new Promise((resolve) => video.requestVideoFrameCallback(resolve));
}
