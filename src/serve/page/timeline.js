// Lanes on one time axis: pictures, sound, and each face, voice and label with its stretches.

import { h, s } from "./dom.js";
import { moment, percent, t } from "./i18n.js";
import { brief, colour, interval, laneText, nearest, peakOf, segmentText, suspicion, verdictOf } from "./report.js";
import { urls } from "./api.js";

const HEIGHT = 58;
const FEW_LANES = 12;
/** Wider drawings are slow, and browsers have limits. */
const MOST_PIXELS = 24000;
const STEPS = [100, 200, 500, 1000, 2000, 5000, 10000, 15000, 30000, 60000, 120000, 300000, 600000, 1200000, 1800000, 3600000, 7200000, 14400000];

const y = (p) => HEIGHT - 2 - p * (HEIGHT - 4);

/** The patterns that tell verdicts apart without colour; once a page. */
export function patterns() {
  const line = (d) => s("path", { d, stroke: "currentColor", "stroke-width": 1.2, fill: "none" });
  return s("svg", { width: 0, height: 0, class: "patterns", "aria-hidden": "true", focusable: "false" },
    s("defs", {},
      s("pattern", { id: "pattern-fake", width: 9, height: 9, patternUnits: "userSpaceOnUse" }, line("M-2 11L11 -2M-2 2L2 -2M7 11L11 7")),
      s("pattern", { id: "pattern-undetermined", width: 9, height: 9, patternUnits: "userSpaceOnUse" }, s("circle", { cx: 3, cy: 3, r: 1.3, fill: "currentColor" })),
      s("pattern", { id: "pattern-unjudged", width: 9, height: 9, patternUnits: "userSpaceOnUse" }, line("M0 0L9 9M9 0L0 9"))));
}

export function legend(still) {
  const key = (verdict, p) => h("li", {}, s("svg", { width: 34, height: 18, "aria-hidden": "true", class: "key" },
    s("rect", { width: 34, height: 18, fill: p === null ? "none" : colour(p, 0.4) }),
    verdict !== "bonafide" && s("rect", { width: 34, height: 18, fill: `url(#pattern-${verdict})`, class: "pattern" }),
    s("rect", { x: 0.5, y: 0.5, width: 33, height: 17, class: verdict === "unjudged" ? "outline dashed" : "outline" })), t(`legend.${verdict}`));
  return h("ul", { class: "legend", "aria-label": t("legend.title") }, key("fake", 1), key("undetermined", 0.5), key("bonafide", 0), key("unjudged", null),
    h("li", { class: "hint" }, t("legend.band")), !still && [h("li", { class: "hint" }, t("legend.curve")), h("li", { class: "hint" }, t("legend.peak"))]);
}

export class Timeline {
  /** `onSeek(ms)`, `onSelect(segment)`; `still`: a picture, which has no time. */
  constructor({ job, duration, still, onSeek, onSelect }) {
    Object.assign(this, { job, still, onSeek, onSelect });
    this.duration = Math.max(1, duration);
    this.lanes = [];
    this.previews = { thumbnails: [], spectrograms: [] };
    this.zoom = 1;
    this.time = 0;
    this.selected = null;
    this.all = false;
    this.playhead = h("div", { class: "playhead", "aria-hidden": "true" });
    this.body = h("div", { class: "tl-body" });
    this.scroller = h("div", { class: "tl-scroll" }, this.body);
    this.tools = h("div", { class: "tl-tools" });
    this.more = h("div", {});
    this.element = h("div", { class: "timeline" }, this.tools, this.scroller, this.more);
    // A mouse seeks when pressed and drags the playhead; a finger seeks by a tap, since moving it scrolls.
    this.body.addEventListener("pointerdown", (event) => {
      this.pointer = event.pointerType;
      if (event.pointerType === "mouse" && event.button === 0) this.point(event);
    });
    this.body.addEventListener("click", (event) => {
      if (event.detail !== 0 && this.pointer !== "mouse") this.point(event);
    });
    this.width = 0;
    this.observer = new ResizeObserver(() => {
      const width = this.scroller.clientWidth;
      if (width && width !== this.width) {
        this.width = width;
        this.draw();
      }
    });
    this.observer.observe(this.scroller);
  }

  stop() {
    this.observer.disconnect();
  }

  set({ lanes = this.lanes, previews = this.previews, duration = this.duration }) {
    this.lanes = lanes;
    this.previews = previews;
    this.duration = Math.max(1, duration);
    this.draw();
  }

  pixels() {
    return Math.min(MOST_PIXELS, Math.max(1, this.width) * this.zoom);
  }

  x(ms) {
    return (ms / this.duration) * this.pixels();
  }

  /** Zooms by a factor about the playhead. */
  zoomBy(factor) {
    const most = Math.max(1, Math.min(MOST_PIXELS / Math.max(1, this.width), (this.duration / 1000) * 120 / Math.max(1, this.width)));
    this.zoom = factor === 0 ? 1 : Math.min(most, Math.max(1, this.zoom * factor));
    this.draw();
    this.scroller.scrollLeft = this.x(this.time) - this.width / 2;
  }

  point(event) {
    if (this.still || event.target.closest(".lane-head")) return;
    const to = (e) => {
      const at = e.clientX - this.body.getBoundingClientRect().left;
      this.onSeek(Math.min(this.duration, Math.max(0, (at / this.pixels()) * this.duration)));
    };
    to(event);
    if (event.type !== "pointerdown") return;
    const stop = () => {
      window.removeEventListener("pointermove", to);
      window.removeEventListener("pointerup", stop);
      window.removeEventListener("pointercancel", stop);
    };
    window.addEventListener("pointermove", to);
    window.addEventListener("pointerup", stop);
    window.addEventListener("pointercancel", stop);
  }

  setTime(ms, follow = false) {
    this.time = ms;
    const x = this.x(ms);
    this.playhead.style.transform = `translateX(${x}px)`;
    if (!follow || this.zoom === 1) return;
    const left = this.scroller.scrollLeft;
    if (x < left || x > left + this.width) this.scroller.scrollLeft = x - this.width / 3;
  }

  select(index) {
    this.selected = index;
    for (const button of this.body.querySelectorAll(".segment")) button.setAttribute("aria-pressed", String(Number(button.dataset.index) === index));
  }

  /** Lanes that are shown: all, or those with the most suspicious stretches, in their order. */
  shown() {
    if (this.all || this.lanes.length <= FEW_LANES) return this.lanes;
    const by = (lane) => (lane.worst ? suspicion(lane.worst) : -2);
    const few = new Set([...this.lanes].sort((a, b) => by(b) - by(a)).slice(0, FEW_LANES));
    return this.lanes.filter((lane) => few.has(lane));
  }

  draw() {
    if (!this.width) return;
    const focused = this.body.contains(document.activeElement) ? document.activeElement.dataset.index : undefined;
    const width = this.pixels();
    this.body.style.width = `${width}px`;
    this.body.replaceChildren(
      ...(this.still ? [] : [this.ruler(width)]),
      ...this.filmstrip(width), ...this.spectrograms(),
      ...this.shown().map((lane) => this.lane(lane, width)),
      this.playhead);
    this.tools.replaceChildren(...(this.still || this.duration < 2000 ? [] : [
      h("button", { type: "button", class: "small", onclick: () => this.zoomBy(2) }, t("lanes.in")),
      h("button", { type: "button", class: "small", disabled: this.zoom === 1, onclick: () => this.zoomBy(0.5) }, t("lanes.out")),
      h("button", { type: "button", class: "small", disabled: this.zoom === 1, onclick: () => this.zoomBy(0) }, t("lanes.fit")),
    ]));
    this.more.replaceChildren(...(this.lanes.length <= FEW_LANES ? [] : [h("button", { type: "button", onclick: () => {
      this.all = !this.all;
      this.draw();
    } }, this.all ? t("lanes.fewer") : t("lanes.more", { n: this.lanes.length }))]));
    this.setTime(this.time);
    if (focused !== undefined) this.body.querySelector(`.segment[data-index="${focused}"]`)?.focus({ preventScroll: true });
  }

  ruler(width) {
    const step = STEPS.find((ms) => (ms / this.duration) * width >= 72) ?? STEPS[STEPS.length - 1];
    const ruler = s("svg", { class: "ruler", width, height: 22, "aria-hidden": "true", focusable: "false" });
    for (let ms = 0; ms <= this.duration; ms += step) {
      const x = this.x(ms);
      ruler.append(s("path", { d: `M${x} 14V22` }));
      if (x < width - 44) ruler.append(s("text", { x: x + 3, y: 12 }, step < 1000 ? moment(ms) : moment(ms).replace(/\.0$/, "")));
    }
    return ruler;
  }

  filmstrip(width) {
    const { thumbnails } = this.previews;
    if (this.still || thumbnails.length < 2) return [];
    const one = 64;
    const count = Math.max(1, Math.min(400, Math.floor(width / one)));
    const strip = h("div", { class: "filmstrip", "aria-hidden": "true" });
    for (let i = 0; i < count; i += 1) {
      const shot = nearest(thumbnails, ((i + 0.5) / count) * this.duration);
      strip.append(h("img", { src: urls.preview(this.job, shot.file), alt: "", loading: "lazy", draggable: "false" }));
    }
    return [strip];
  }

  spectrograms() {
    if (this.still) return [];
    return this.previews.spectrograms.map((one) => h("div", { class: "spectrogram" },
      h("div", { class: "lane-head" }, h("span", {}, `${t("lanes.sound")} ${this.previews.spectrograms.length > 1 ? one.stream : ""}`)),
      h("div", { class: "spectrogram-row" }, h("img", {
        src: urls.preview(this.job, one.file), draggable: "false",
        alt: t("lanes.spectrogram", { n: one.stream }),
        css: { left: `${this.x(one.start_ms)}px`, width: `${this.x(one.width * one.ms_per_column)}px` },
      }))));
  }

  lane(lane, width) {
    const worst = lane.worst;
    const element = h("div", { class: "lane", role: "group", "aria-label": laneText(lane) },
      h("div", { class: "lane-head", "aria-hidden": "true" }, h("b", {}, lane.name),
        worst && h("span", { class: `verdict ${verdictOf(worst)}` }, brief(worst))));
    lane.rows.forEach((row, i) => element.append(this.row(lane, row, width, i === 0)));
    if (!lane.rows.length) element.append(h("p", { class: "hint lane-empty" }, t("lanes.noWorst")));
    const buttons = [...element.querySelectorAll(".segment")];
    buttons.forEach((button, i) => (button.tabIndex = i === 0 ? 0 : -1));
    element.addEventListener("keydown", (event) => {
      const at = buttons.indexOf(event.target);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
      if (at < 0 || to === undefined) return;
      event.preventDefault();
      const next = buttons[Math.min(buttons.length - 1, Math.max(0, to))];
      buttons.forEach((button) => (button.tabIndex = button === next ? 0 : -1));
      next.focus();
    });
    return element;
  }

  span(segment) {
    if (this.still) return [0, this.pixels()];
    const left = this.x(segment.start_ms);
    return [left, Math.max(5, this.x(segment.end_ms) - left)];
  }

  row(lane, segments, width, first) {
    const drawing = s("svg", { width, height: HEIGHT, "aria-hidden": "true", focusable: "false" }, s("path", { class: "grid", d: `M0 ${y(0.5)}H${width}` }));
    const buttons = [];
    for (const segment of segments) {
      const [left, wide] = this.span(segment);
      const verdict = verdictOf(segment);
      const p = segment.probability;
      if (verdict !== "unjudged") {
        const { low, high } = interval(segment);
        drawing.append(
          s("rect", { x: left, width: wide, height: HEIGHT, fill: colour(p, 0.26) }),
          s("rect", { x: left, width: wide, y: y(high), height: Math.max(3, y(low) - y(high)), fill: colour(p, 0.5) }),
          s("path", { d: `M${left} ${y(p)}h${wide}`, stroke: colour(p), "stroke-width": 3 }));
      }
      if (verdict !== "bonafide") drawing.append(s("rect", { class: "pattern", x: left, width: wide, height: HEIGHT, fill: `url(#pattern-${verdict})` }));
      drawing.append(s("rect", { class: verdict === "unjudged" ? "outline dashed" : "outline", x: left + 0.5, y: 0.5, width: Math.max(1, wide - 1), height: HEIGHT - 1 }));
      const short = verdict === "unjudged" || wide > 190 || (verdict === "fake" && wide > 110) ? brief(segment) : percent(p);
      buttons.push(h("button", {
        type: "button", class: `segment ${verdict}`, "data-index": segment.index, "aria-label": segmentText(segment), title: segmentText(segment),
        "aria-pressed": String(segment.index === this.selected), css: { left: `${left}px`, width: `${wide}px` },
        onclick: (event) => {
          // A click already went to its own moment; the keyboard goes to the strongest one.
          if (event.detail === 0 && !this.still) this.onSeek(peakOf(segment));
          this.onSelect(segment);
        },
      }, wide > 44 && h("span", { class: "segment-text" }, short)));
    }
    if (first && lane.kind !== "labels" && !this.still) drawing.append(...this.curve(lane.windows, width));
    for (const segment of segments) {
      if (this.still || segment.peak_ms === null || segment.peak_ms === undefined) continue;
      const [x, top] = [this.x(segment.peak_ms), Math.min(HEIGHT - 9, y(segment.peak_probability ?? 1) + 3)];
      drawing.append(s("path", { class: "peak", d: `M${x} ${top}l5 8h-10z` }));
    }
    return h("div", { class: "lane-row" }, drawing, buttons);
  }

  /** The windows' smoothed probability, broken where nothing was judged; of more windows than pixels the highest. */
  curve(windows, width) {
    const paths = [];
    let d = "";
    let end = null;
    let pixel = null;
    for (const one of windows) {
      const x = this.x((one.start_ms + one.end_ms) / 2);
      const gap = end !== null && one.start_ms - end > Math.max(1000, one.end_ms - one.start_ms);
      end = Math.max(end ?? 0, one.end_ms);
      if (gap && d) {
        paths.push(d);
        d = "";
        pixel = null;
      }
      if (windows.length > width && pixel !== null && Math.abs(x - pixel.x) < 1) {
        if (one.smoothed <= pixel.p) continue;
        d = d.slice(0, pixel.at);
      }
      pixel = { x, p: one.smoothed, at: d.length };
      d += `${d ? "L" : "M"}${x.toFixed(1)} ${y(one.smoothed).toFixed(1)}`;
    }
    if (d) paths.push(d);
    return paths.map((path) => s("path", { class: "curve", d: path }));
  }
}
