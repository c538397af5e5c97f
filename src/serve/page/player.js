// The media where it is still here, else its stills; and what was found, drawn over it.

import { h, s } from "./dom.js";
import { moment, percent, t } from "./i18n.js";
import { boxAt, nearest, segmentAt, verdictOf } from "./report.js";
import { urls } from "./api.js";

export class Player {
  /** `onTime(ms, playing)` follows the media. */
  constructor({ job, kind, duration, size, onTime }) {
    Object.assign(this, { job, kind, onTime });
    this.duration = duration;
    this.size = size;
    this.time = 0;
    this.lanes = [];
    this.regions = [];
    this.thumbnails = [];
    this.marks = true;
    this.frame = h("div", { class: "frame" });
    this.caption = h("p", { class: "hint" });
    this.overlay = s("svg", { class: "overlay", "aria-hidden": "true", focusable: "false", preserveAspectRatio: "none" });
    this.position = h("input", { id: "position", type: "range", min: 0, max: Math.max(1, duration), step: 100, value: 0, oninput: (event) => this.seek(Number(event.target.value)) });
    this.clock = h("output", { for: "position", class: "number" });
    this.controls = h("div", { class: "player-controls" });
    this.element = h("div", { class: "player" }, this.frame, this.caption, this.controls);
    this.media = null;
    if (job.has_media && kind) this.play();
    else this.stills(t("player.gone"));
    this.frameRequest = null;
    this.tick();
  }

  stop() {
    this.media?.pause?.();
    this.media?.removeAttribute?.("src");
    cancelAnimationFrame(this.frameRequest);
  }

  set({ lanes, regions, thumbnails, duration, size }) {
    Object.assign(this, { lanes, regions, thumbnails, duration, size });
    this.position.max = Math.max(1, duration);
    if (!this.media) this.stills(this.caption.textContent);
    this.shape();
    this.buildControls();
    this.draw();
  }

  shape(ratio = this.size ? this.size.width / this.size.height : null) {
    if (!ratio || this.kind === "audio") return;
    this.ratio = ratio;
    this.frame.style.setProperty("--ratio", String(ratio));
  }

  play() {
    const src = urls.media(this.job.id);
    const onerror = () => {
      this.media = null;
      this.stills(t("player.notPlayable"));
      this.draw();
    };
    if (this.kind === "image") {
      this.media = h("img", { src, alt: t("player.image"), onerror, onload: () => this.shape(this.media.naturalWidth / this.media.naturalHeight) });
    } else {
      this.media = h(this.kind, { src, controls: true, preload: "metadata", playsinline: true, "aria-label": t("player.title"), onerror });
      this.media.addEventListener("loadedmetadata", () => {
        if (this.media?.videoWidth) this.shape(this.media.videoWidth / this.media.videoHeight);
        if (this.media && this.time) this.media.currentTime = this.time / 1000;
      });
      this.media.addEventListener("seeking", () => this.follow());
      this.media.addEventListener("timeupdate", () => this.follow());
      this.media.addEventListener("play", () => this.tick());
    }
    this.frame.className = `frame ${this.kind}`;
    this.frame.replaceChildren(this.media, this.overlay);
  }

  stills(why) {
    this.still = h("img", { alt: "", draggable: "false" });
    this.frame.className = "frame stills";
    this.caption.textContent = this.thumbnails.length ? why : "";
    this.frame.replaceChildren(...(this.thumbnails.length ? [this.still, this.overlay] : []));
    if (!this.thumbnails.length && this.kind !== "audio") this.caption.textContent = t("player.nothing");
    else if (!this.thumbnails.length) this.caption.textContent = why;
  }

  buildControls() {
    if (this.kind === "image") {
      this.controls.replaceChildren(this.marksToggle());
      return;
    }
    const speed = this.media && h("label", {}, t("player.speed"), " ", h("select", { onchange: (event) => this.media && (this.media.playbackRate = Number(event.target.value)) },
      ["0.25", "0.5", "1", "1.5", "2"].map((v) => h("option", { value: v, selected: v === "1" }, `${v}×`))));
    const parts = [h("label", { for: "position" }, t("player.position")), this.position, this.clock, speed, this.kind === "video" && this.marksToggle()];
    this.controls.replaceChildren(...parts.filter(Boolean));
  }

  marksToggle() {
    return h("label", { class: "toggle" }, h("input", { type: "checkbox", checked: this.marks, onchange: (event) => {
      this.marks = event.target.checked;
      this.draw();
    } }), " ", t("player.boxes"));
  }

  playing() {
    return Boolean(this.media && this.media.paused === false);
  }

  toggle() {
    if (!this.media?.play) return;
    if (this.media.paused) this.media.play().catch(() => {});
    else this.media.pause();
  }

  follow() {
    if (!this.media || this.media.currentTime === undefined) return;
    this.time = this.media.currentTime * 1000;
    this.onTime(this.time, this.playing());
    this.draw();
  }

  tick() {
    cancelAnimationFrame(this.frameRequest);
    if (!this.playing()) return;
    this.follow();
    this.frameRequest = requestAnimationFrame(() => this.tick());
  }

  seek(ms) {
    this.time = Math.min(this.duration, Math.max(0, ms));
    if (this.media?.currentTime !== undefined && this.media.readyState > 0) this.media.currentTime = this.time / 1000;
    this.onTime(this.time, false);
    this.draw();
  }

  draw() {
    this.position.value = String(this.time);
    this.position.setAttribute("aria-valuetext", moment(this.time));
    this.clock.textContent = `${moment(this.time)} / ${moment(this.duration)}`;
    if (!this.media && this.thumbnails.length) {
      const shot = nearest(this.thumbnails, this.time);
      const src = urls.preview(this.job.id, shot.file);
      if (!this.still.src.endsWith(src)) this.still.src = src;
      this.still.alt = t("player.still", { time: moment(shot.time_ms) });
      this.shape(shot.width / shot.height);
    }
    this.drawMarks();
  }

  drawMarks() {
    this.overlay.replaceChildren();
    if (!this.marks || !this.size || this.kind === "audio") return;
    const { width, height } = this.size;
    this.overlay.setAttribute("viewBox", `0 0 ${width} ${height}`);
    // Stills stand at their own moment, not at the slider's.
    const at = !this.media && this.thumbnails.length ? nearest(this.thumbnails, this.time).time_ms : this.time;
    const unit = Math.max(width, height) / 640;
    for (const lane of this.lanes) {
      if (lane.kind !== "face") continue;
      const box = boxAt(lane, at);
      if (!box) continue;
      const segment = segmentAt(lane, at);
      const verdict = segment ? verdictOf(segment) : "unjudged";
      const text = `${lane.name}${segment?.probability !== null && segment ? ` · ${percent(segment.probability)}` : ""}`;
      this.mark(box, text, verdict, unit);
    }
    for (const { region, text, start_ms, end_ms } of this.regions) {
      if (start_ms !== undefined && start_ms !== null && (at < start_ms - 50 || at > end_ms + 50)) continue;
      this.mark(region, text, "region", unit);
    }
  }

  mark({ x, y, w, h: high }, text, kind, unit) {
    const size = 15 * unit;
    const top = y > size * 1.5 ? y - size * 0.4 : y + high + size * 1.1;
    this.overlay.append(s("g", { class: `mark ${kind}` },
      s("rect", { x, y, width: w, height: high, "stroke-width": 5 * unit, class: "halo" }),
      s("rect", { x, y, width: w, height: high, "stroke-width": 2.2 * unit, class: "line" }),
      s("text", { x: Math.max(2, Math.min(x, this.size.width - text.length * size * 0.6)), y: top, "font-size": size, "stroke-width": 4 * unit }, text)));
  }
}
