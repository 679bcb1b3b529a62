/**
 * An animated picture (PNG) in the place of a video: a canvas with as much of a video's interface as the player uses.
 * Such clips come from servers that have no video encoder.
 */

export class Film extends EventTarget {
  /** The frames of `blob`, decoded. Error where the browser cannot, or where it is no animation. */
  static async of(blob) {
    if (!("ImageDecoder" in globalThis)) throw new Error("this browser shows no clips without a video encoder");
    const decoder = new ImageDecoder({ data: blob.stream(), type: blob.type });
    await decoder.completed;
    const frames = [];
    let ends = 0;
    for (let at = 0; at < decoder.tracks.selectedTrack.frameCount; at++) {
      const { image } = await decoder.decode({ frameIndex: at });
      ends += image.duration / 1e6;
      frames.push({ picture: await createImageBitmap(image), ends });
      image.close();
    }
    decoder.close();
    return new Film(frames);
  }

  constructor(frames) {
    super();
    this.frames = frames;
    this.canvas = document.createElement("canvas");
    this.videoWidth = this.canvas.width = frames[0].picture.width;
    this.videoHeight = this.canvas.height = frames[0].picture.height;
    this.duration = frames.at(-1).ends;
    this.playbackRate = 1;
    this.paused = true;
    this.currentTime = 0;
  }

  get classList() {
    return this.canvas.classList;
  }

  get currentTime() {
    return this.time;
  }

  set currentTime(seconds) {
    this.time = seconds;
    this.#draw();
  }

  get ended() {
    return this.time >= this.duration;
  }

  async play() {
    if (!this.paused) return;
    this.paused = false;
    this.last = performance.now();
    requestAnimationFrame((now) => this.#step(now));
  }

  pause() {
    this.paused = true;
  }

  requestVideoFrameCallback(seen) {
    requestAnimationFrame(seen);
  }

  /** Gives the memory of the frames back. */
  close() {
    this.pause();
    this.canvas.remove();
    for (const { picture } of this.frames) picture.close();
  }

  #step(now) {
    if (this.paused) return;
    this.time = Math.min(this.duration, this.time + (this.playbackRate * (now - this.last)) / 1000);
    this.last = now;
    this.#draw();
    if (!this.ended) return void requestAnimationFrame((next) => this.#step(next));
    this.paused = true;
    this.dispatchEvent(new Event("ended"));
  }

  #draw() {
    const frame = this.frames.find(({ ends }) => this.time < ends) ?? this.frames.at(-1);
    this.canvas.getContext("2d").drawImage(frame.picture, 0, 0);
  }
}
