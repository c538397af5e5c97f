// One job: its media with everything that was found on one time axis, the evidence in words, the decision.

import { api, urls } from "./api.js";
import { announce, byId, h, modal, s, toast, typing } from "./dom.js";
import { bytes, language, moment, percent, t, when } from "./i18n.js";
import { actionBadge, facts, jobName, notice, problemText, stateBadge } from "./chips.js";
import { announceOutcome, decideDialog, decidePanel } from "./decide.js";
import { DeliveriesPanel } from "./deliveries.js";
import { heatFigure } from "./heat.js";
import { Player } from "./player.js";
import { remembered } from "./queue.js";
import { brief, interval, lanes, nearest, peakOf, segmentText, suspicion, verdictOf, verdictWord } from "./report.js";
import { legend, patterns, Timeline } from "./timeline.js";
import { detail, deviation, line, term, trackName, word } from "./words.js";

const FINAL = ["done", "failed", "cancelled"];
const POLL_MS = 3000;
const NO_PREVIEWS = { thumbnails: [], spectrograms: [], crops: [] };

/** What reports say in the engine's English, marked as such. */
const english = (text) => h("span", { lang: "en" }, text);

export class JobView {
  constructor(main, id, session) {
    Object.assign(this, { main, id, session, job: null, report: null, previews: NO_PREVIEWS, decisions: [], stopped: false, at: 0 });
    this.deliveries = new DeliveriesPanel(id, session);
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
    main.replaceChildren(this.backLink(), h("p", { class: "hint", role: "status" }, t("app.loading")));
    this.load();
  }

  stop() {
    this.stopped = true;
    this.events?.close();
    clearInterval(this.timer);
    this.player?.stop();
    this.timeline?.stop();
    this.deliveries.stop();
    document.removeEventListener("keydown", this.onKey);
  }

  backLink() {
    const at = remembered.ids.indexOf(this.id);
    const neighbour = (to, text, key) => remembered.ids[to] && h("a", { href: `#/job/${remembered.ids[to]}`, "aria-keyshortcuts": key }, text);
    return h("nav", { class: "crumbs", "aria-label": t("queue.title") },
      h("a", { href: remembered.query || "#/" }, `← ${t("job.back")}`),
      at >= 0 && h("span", { class: "steps" }, at > 0 && neighbour(at - 1, `↑ ${t("job.previous")}`, "k"), h("span", { class: "hint" }, t("job.position", { n: at + 1, all: remembered.ids.length })), neighbour(at + 1, `↓ ${t("job.next")}`, "j")));
  }

  async load() {
    try {
      this.job = await api.job(this.id);
      if (this.stopped) return;
      document.title = `${jobName(this.job)} – Veriscope`;
      if (FINAL.includes(this.job.state)) await this.loadReport();
      else this.listen();
      if (this.stopped) return;
      this.build();
      byId("title")?.focus({ preventScroll: true });
    } catch (problem) {
      this.failed(problem);
    }
  }

  failed(problem) {
    if (this.stopped || problem.name === "AbortError") return;
    if (problem.status === 401) this.session.ended();
    else this.main.replaceChildren(this.backLink(), notice(t("error.title"), problemText(problem), problem.status === 404 ? null : { text: t("app.retry"), run: () => this.load() }));
  }

  async loadReport() {
    const maybe = async (promise, otherwise) => {
      try {
        return await promise;
      } catch (problem) {
        // Previews and reports may be deleted while the job is kept.
        if (problem.status === 404 || problem.status === 410) return otherwise;
        throw problem;
      }
    };
    const judged = this.job.state !== "cancelled";
    const [report, previews, decisions] = await Promise.all([
      judged ? maybe(api.report(this.id), null) : null,
      this.job.state === "done" ? maybe(api.previews(this.id), NO_PREVIEWS) : NO_PREVIEWS,
      maybe(api.decisions(this.id), { decisions: [] }),
    ]);
    this.report = report;
    this.previews = { ...NO_PREVIEWS, ...previews };
    this.decisions = decisions.decisions;
  }

  /** Follows a job that is not finished: by its events, and by asking now and then in case they break off. */
  listen() {
    this.provisional = [];
    this.events = new EventSource(urls.events(this.id));
    const on = (name, f) => this.events.addEventListener(name, (event) => {
      try {
        f(JSON.parse(event.data));
      } catch (_) {
        // A later version's event; asking for the job tells the same.
      }
    });
    on("state", (data) => this.changed(data.state));
    on("progress", (data) => {
      this.job.progress = data;
      this.showProgress();
    });
    on("segments", (data) => {
      // All segments found so far, in place of those before.
      this.provisional = data.segments;
      this.showProvisional();
    });
    on("done", () => this.finish());
    this.timer = setInterval(() => document.hidden || this.poll(), POLL_MS);
  }

  async poll() {
    try {
      const job = await api.job(this.id);
      if (this.stopped || FINAL.includes(this.job.state)) return;
      if (FINAL.includes(job.state)) await this.finish();
      else {
        const moved = job.state !== this.job.state;
        this.job = { ...job, progress: job.progress ?? this.job.progress };
        if (moved) this.changed(job.state);
        this.showProgress();
      }
    } catch (problem) {
      if (problem.status === 401) this.session.ended();
      else if (problem.status === 404) this.failed(problem);
    }
  }

  changed(state) {
    if (this.stopped || FINAL.includes(state)) return;
    this.job.state = state;
    this.showProgress();
    const badge = byId("state");
    if (badge) badge.replaceChildren(stateBadge(state));
  }

  async finish() {
    if (this.stopped || this.finishing) return;
    this.finishing = true;
    this.events.close();
    clearInterval(this.timer);
    try {
      this.job = await api.job(this.id);
      await this.loadReport();
      if (this.stopped) return;
      this.player?.stop();
      this.timeline?.stop();
      this.build();
      announceOutcome(this.job);
    } catch (problem) {
      this.failed(problem);
    }
  }

  size() {
    const stream = this.report?.media.streams.find((one) => one.kind === "video");
    return stream?.width ? { width: stream.width, height: stream.height } : null;
  }

  kind() {
    return this.report?.media.kind ?? this.job.summary?.kind ?? null;
  }

  duration() {
    const known = this.report?.media.duration_ms ?? this.job.progress?.duration_ms ?? this.job.summary?.duration_ms ?? 0;
    // Tracks may reach a little beyond what the container says.
    return this.lanes.reduce((most, lane) => Math.max(most, lane.end_ms), known);
  }

  build() {
    const { job, report } = this;
    this.lanes = report ? lanes(report.tracks, report.segments) : lanes([], this.provisional ?? []);
    const kind = this.kind();
    const still = kind === "image";
    const finished = FINAL.includes(job.state);
    const title = h("h1", { id: "title", tabindex: "-1", dir: "auto" }, jobName(job));
    const chips = h("p", { class: "chips" }, h("span", { id: "state" }, stateBadge(job.state)), kind && h("span", { class: "chip" }, term("kind", kind)), report?.media.duration_ms ? h("span", { class: "chip" }, moment(report.media.duration_ms)) : null,
      job.priority !== "normal" && h("span", { class: "chip" }, term("priority", job.priority)), job.declared_ai && h("span", { class: "chip warn" }, t("job.declared")), job.reused && h("span", { class: "chip" }, t("job.reused")));
    this.progress = h("section", { class: "panel", hidden: finished, "aria-label": t("job.progress") });
    this.detail = h("section", { class: "panel detail", id: "detail", "aria-label": t("segment.title") });
    this.timeline = null;
    this.player = null;
    const left = [this.progress];
    if (!finished || (report && report.status !== "failed")) {
      this.player = new Player({ job, kind, duration: this.duration(), size: this.size(), onTime: (ms, playing) => {
        this.at = ms;
        this.timeline?.setTime(ms, playing);
      } });
      this.timeline = new Timeline({ job: this.id, duration: this.duration(), still, onSeek: (ms) => this.player.seek(ms), onSelect: (segment) => this.select(segment.index) });
      this.timeline.playhead.hidden = still || !finished;
      const lanesSection = h("section", { class: "panel lanes", "aria-labelledby": "lanes-title" }, h("h2", { id: "lanes-title" }, t(still ? "lanes.titleStill" : "lanes.title")), h("p", { class: "hint" }, finished ? t(still ? "lanes.hintStill" : "lanes.hint") : t("job.provisional")), patterns(), this.timeline.element, legend(still));
      left.push(finished && h("section", { class: "panel", "aria-labelledby": "player-title" }, h("h2", { id: "player-title" }, t("player.title")), this.player.element), lanesSection, finished && this.detail);
      if (finished) left.push(this.table());
    }
    // Where nothing could be read, "no label was found" would be untrue.
    if (report && report.status !== "failed") left.push(this.labels(), this.evidence());
    if (report) left.push(this.reasons());
    this.facts = h("section", { class: "panel", "aria-labelledby": "facts-title" });
    this.aside = h("aside", { "aria-label": t("decide.title") });
    this.main.replaceChildren(this.backLink(), title, chips, this.outcome(), h("div", { class: "columns" }, h("div", { class: "column" }, left.filter(Boolean)), this.aside, this.facts, this.deliveries.element), this.bar());
    this.showAside();
    if (finished) this.deliveries.load();
    if (this.timeline) {
      const regions = [...(report?.labels ?? []).map((one) => ({ ...one, text: word("system", one.system) })), ...(report?.strip_evidence ?? []).map((one) => ({ ...one, text: word("evidence", one.kind) }))].filter((one) => one.region);
      this.player.set({ lanes: this.lanes, regions, thumbnails: this.previews.thumbnails, duration: this.duration(), size: this.size() });
      this.timeline.set({ lanes: this.lanes, previews: this.previews });
      const worst = this.lanes.map((lane) => lane.worst).filter(Boolean).sort((a, b) => suspicion(b) - suspicion(a))[0];
      if (finished) this.select(worst?.index ?? (report?.segments.length ? 0 : null), false);
      if (worst && verdictOf(worst) !== "bonafide" && finished && !still && !this.at) this.player.seek(peakOf(worst));
      else if (this.at) this.player.seek(this.at);
    }
    this.showProgress();
  }

  outcome() {
    const { job, report } = this;
    const failure = report?.error ?? job.error;
    const parts = [];
    if (failure) {
      const broken = job.state === "failed";
      parts.push(h("div", { class: "fault", role: "note" }, h("h2", {}, broken ? t("job.failedTitle") : t("job.partialTitle")), h("p", {}, word("error", failure.code)), h("p", { class: "hint" }, english(failure.message)), failure.time_ms !== null && failure.time_ms !== undefined ? h("p", { class: "hint" }, t("job.partialAt", { time: moment(failure.time_ms) })) : null));
    }
    if (job.outcome) {
      const { outcome } = job;
      const evidence = report?.disposition.evidence ?? [];
      parts.push(h("div", { class: "outcome" },
        h("div", {}, h("h2", {}, t("job.outcome")), actionBadge(outcome.action, true), h("p", { class: "hint" }, t("job.policy"), t("colon"), outcome.policy_version)),
        h("div", {}, h("h2", {}, t("job.because")), outcome.because.length ? h("ul", {}, outcome.because.map((one) => h("li", {}, line(one)))) : h("p", {}, t("job.noEvidence"))),
        h("div", {}, h("h2", {}, t("job.disposition")), h("p", {}, word("disposition", outcome.disposition)),
          evidence.length ? h("div", {}, h("p", { class: "hint" }, t("job.evidence"), t("colon")), h("ul", {}, evidence.map((one) => h("li", {}, line(one))))) : null)));
    }
    return parts.length ? h("section", { class: "panel", "aria-label": t("job.outcome") }, parts) : h("div", {});
  }

  showProgress() {
    const { job } = this;
    if (!this.progress || FINAL.includes(job.state)) return;
    const { progress } = job;
    const share = progress?.duration_ms ? Math.min(1, progress.media_ms / progress.duration_ms) : null;
    const text = { queued: t("job.queuedHint"), fetching: t("job.fetchingHint") }[job.state] ?? (progress ? t("job.progressOf", { at: moment(progress.media_ms), all: progress.duration_ms ? moment(progress.duration_ms) : "?" }) : "");
    this.progress.replaceChildren(h("h2", {}, t("job.progress")), h("progress", { max: 1, value: share ?? undefined, "aria-label": t("job.progress") }), h("p", { class: "number" }, share === null ? text : `${percent(share)} · ${text}`));
    // Said aloud at each quarter only.
    const quarter = share === null ? job.state : Math.floor(share * 4);
    if (this.said !== undefined && this.said !== quarter) announce(share === null ? text : percent(share));
    this.said = quarter;
  }

  showProvisional() {
    if (!this.timeline || FINAL.includes(this.job.state)) return;
    this.lanes = lanes([], this.provisional);
    this.timeline.set({ lanes: this.lanes, duration: this.duration() });
  }

  segment(index) {
    return this.lanes.flatMap((lane) => lane.segments).find((one) => one.index === index) ?? null;
  }

  select(index, move = true) {
    const segment = index === null ? null : this.segment(index);
    this.selected = segment?.index ?? null;
    this.timeline?.select(this.selected);
    if (!segment) {
      this.detail.replaceChildren(h("h2", {}, t("segment.title")), h("p", { class: "hint" }, t("segment.none")));
      return;
    }
    const verdict = verdictOf(segment);
    const { low, high } = interval(segment);
    const still = this.kind() === "image";
    const judged = verdict !== "unjudged";
    const peak = segment.peak_ms;
    const crop = this.previews.crops.find((one) => one.segment === segment.index);
    this.detail.replaceChildren(
      h("h2", {}, `${trackName(segment.track)}${t("colon")}${term("detector", segment.detector)}`),
      h("div", { class: "detail-body" },
        h("div", {},
          h("p", { class: `verdict-line ${verdict}` }, h("b", {}, brief(segment)), judged && h("span", {}, t(`verdictLong.${verdict}`))),
          facts([
            !still && [t("segment.when"), `${moment(segment.start_ms)} – ${moment(segment.end_ms)}`],
            judged && [t("segment.probability"), `${percent(segment.probability)}, ${t("segment.interval", { low: percent(low), high: percent(high) })}`],
            peak !== null && peak !== undefined && !still && [t("segment.peak"), t("segment.peakAt", { p: percent(segment.peak_probability), time: moment(peak) })],
            segment.reasons.length > 0 && [t("segment.why"), h("ul", { class: "plain" }, segment.reasons.map((reason) => h("li", {}, word("reason", reason.code), h("div", { class: "hint" }, detail(reason.detail)))))],
          ].filter(Boolean)),
          !still && h("p", {}, h("button", { type: "button", onclick: () => this.player.seek(peakOf(segment)) }, t("segment.seek", { time: moment(peakOf(segment)) })))),
        segment.heat_map ? h("div", {}, h("h3", {}, t("heat.title")), heatFigure(this.id, segment, crop)) : null));
    if (move) announce(segmentText(segment));
  }

  table() {
    const all = this.lanes.flatMap((lane) => lane.segments);
    if (!all.length) return null;
    const still = this.kind() === "image";
    const col = (key) => h("th", { scope: "col" }, t(key));
    const table = () => h("div", { class: "wide", tabindex: "0", role: "region", "aria-label": t("segment.table") }, h("table", {},
      h("thead", {}, h("tr", {}, col("segment.where"), col("queue.col.findings"), !still && col("segment.when"), col("segment.verdict"), col("segment.probability"), col("segment.why"))),
      h("tbody", {}, all.map((one) => {
        const { low, high } = interval(one);
        const judged = verdictOf(one) !== "unjudged";
        const where = h("button", { type: "button", class: "link", onclick: () => {
          if (!still) this.player.seek(peakOf(one));
          this.select(one.index);
          this.timeline.element.scrollIntoView({ block: "nearest" });
        } }, trackName(one.track));
        return h("tr", {}, h("th", { scope: "row" }, where), h("td", {}, term("detector", one.detector)), !still && h("td", { class: "number" }, `${moment(one.start_ms)} – ${moment(one.end_ms)}`), h("td", { class: `verdict ${verdictOf(one)}` }, verdictWord(one)),
          h("td", { class: "number" }, judged ? `${percent(one.probability)} (${percent(low)} – ${percent(high)})` : "–"), h("td", {}, one.reasons.map((reason) => h("div", { title: reason.detail }, word("reason", reason.code)))));
      }))));
    const details = h("details", { class: "panel" }, h("summary", {}, h("h2", {}, t("segment.table"))));
    // Long media has thousands of stretches: the table is made when it is wanted.
    details.addEventListener("toggle", () => details.append(table()), { once: true });
    return details;
  }

  /** The nearest still with a region drawn on it, where there is one. */
  region(one) {
    const size = this.size();
    if (!one.region || !size) return null;
    const { x, y, w, h: high } = one.region;
    const when = one.start_ms !== undefined && one.start_ms !== null ? (one.start_ms + (one.end_ms ?? one.start_ms)) / 2 : 0;
    const shot = nearest(this.previews.thumbnails, when);
    const box = s("svg", { viewBox: `0 0 ${size.width} ${size.height}`, preserveAspectRatio: "none", "aria-hidden": "true", class: "overlay" }, s("rect", { x, y, width: w, height: high, class: "halo", "stroke-width": size.width / 50 }), s("rect", { x, y, width: w, height: high, class: "line region", "stroke-width": size.width / 120 }));
    const time = moment(shot?.time_ms ?? when);
    return h("figure", { class: "region" },
      h("div", { class: "region-picture", css: { "aspect-ratio": `${size.width} / ${size.height}` } }, shot && h("img", { src: urls.preview(this.id, shot.file), alt: t("evidence.region", { time }) }), box),
      h("figcaption", { class: "hint" }, t("evidence.regionText", { x, y, w, h: high }), one.start_ms !== undefined && one.start_ms !== null && this.kind() === "video" ? [", ", h("button", { type: "button", class: "link", onclick: () => this.player.seek(one.start_ms) }, t("evidence.when", { from: moment(one.start_ms), to: moment(one.end_ms) }))] : ""));
  }

  labels() {
    const labels = this.report.labels;
    const notes = labels.filter((one) => one.system === "encoder");
    const item = (one) => {
      let content = one.content;
      try {
        content = JSON.stringify(JSON.parse(one.content), null, 1);
      } catch (_) {
        // Not every label is JSON.
      }
      const found = one.verdict !== "not_found";
      return h("li", { class: `item ${one.ai ? "says-ai" : ""}` }, h("h3", {}, word("system", one.system), " ", h("span", { class: `badge label-${one.verdict}` }, term("labelVerdict", one.verdict))),
        found && h("p", {}, word("ai", String(one.ai ?? null))),
        one.deviations.length > 0 && h("div", {}, h("p", { class: "hint" }, t("labels.deviations"), t("colon")), h("ul", {}, one.deviations.map((code) => h("li", {}, deviation(code))))),
        this.region(one),
        found ? h("details", {}, h("summary", {}, t("labels.content")), h("pre", { tabindex: "0" }, h("code", { lang: "en" }, content)), h("p", { class: "hint" }, t("labels.place"), t("colon"), h("code", {}, one.place))) : h("p", { class: "hint" }, detail(one.content)));
    };
    const main = labels.filter((one) => one.system !== "encoder");
    return h("section", { class: "panel", "aria-labelledby": "labels-title" }, h("h2", { id: "labels-title" }, t("labels.title")), main.length ? h("ul", { class: "items" }, main.map(item)) : h("p", { class: "hint" }, t("labels.none")),
      notes.length > 0 && h("details", {}, h("summary", {}, t("labels.others", { n: notes.length })), h("ul", { class: "notes" }, notes.map((one) => h("li", {}, h("code", { lang: "en" }, one.content), h("div", { class: "hint" }, one.place))))));
  }

  evidence() {
    const evidence = this.report.strip_evidence;
    const strength = (weight) => (weight >= 4 ? "strong" : weight >= 1.5 ? "medium" : "weak");
    const item = (one) => h("li", { class: "item" }, h("h3", {}, word("evidence", one.kind), " ", h("span", { class: `badge strength-${strength(one.weight)}` }, t(`evidence.weight.${strength(one.weight)}`))),
      h("p", {}, t("evidence.weight", { n: new Intl.NumberFormat(language(), { maximumSignificantDigits: 2 }).format(Math.exp(one.weight)) })),
      this.region(one), h("p", { class: "hint" }, detail(one.detail)), h("p", { class: "hint" }, t("labels.place"), t("colon"), h("code", {}, one.place)));
    return h("section", { class: "panel", "aria-labelledby": "evidence-title" }, h("h2", { id: "evidence-title" }, t("evidence.title")), evidence.length ? h("ul", { class: "items" }, evidence.map(item)) : h("p", { class: "hint" }, t("evidence.none")));
  }

  reasons() {
    const { report } = this;
    const entry = (where, reason) => h("li", {}, h("b", {}, where), t("colon"), word("reason", reason.code), h("div", { class: "hint" }, detail(reason.detail)));
    const list = [
      ...report.reasons.map((reason) => entry(t("reasons.file"), reason)),
      ...report.tracks.flatMap((track) => track.reasons.map((reason) => entry(trackName(track.id), reason))),
      ...report.segments.filter((one) => verdictOf(one) === "unjudged").flatMap((one) => one.reasons.map((reason) => entry(`${trackName(one.track)}, ${moment(one.start_ms)} – ${moment(one.end_ms)}`, reason))),
    ];
    if (!list.length && report.status !== "ok") return null;
    return h("section", { class: "panel", "aria-labelledby": "reasons-title" }, h("h2", { id: "reasons-title" }, t("reasons.title")), list.length ? h("ul", { class: "notes" }, list) : h("p", { class: "hint" }, t("reasons.none")));
  }

  showAside() {
    const { job, report } = this;
    const source = { upload: () => t("source.upload"), url: () => t("source.url", { url: job.source.url }), path: () => `${t("source.path")}${t("colon")}${job.source.path}` }[job.source.kind]?.() ?? job.source.kind;
    const decided = (updated) => {
      this.job = updated;
      api.decisions(this.id).then((list) => {
        if (this.stopped) return;
        this.decisions = list.decisions;
        this.showAside();
        byId("decide")?.querySelector("button")?.focus({ preventScroll: true });
        this.deliveries.load();
      }, (problem) => toast(problemText(problem), "bad"));
    };
    this.decided = decided;
    const took = report?.timings.total_ms;
    this.aside.replaceChildren(decidePanel(job, this.decisions, this.session.may("review"), decided));
    this.facts.replaceChildren(...[h("h2", { id: "facts-title" }, t("job.facts")), facts([
        [t("job.reference"), job.reference], [t("job.source"), source], [t("job.priority"), term("priority", job.priority)], [t("job.bytes"), job.bytes === null ? null : bytes(job.bytes)],
        [t("job.submitted"), when(job.submitted_at)], [t("job.started"), when(job.started_at)], [t("job.finished"), when(job.finished_at)], [t("job.took"), took ? `${(took / 1000).toFixed(1)} s` : null], [t("job.attempts"), String(job.attempts)],
        [t("job.device"), report?.engine.device], [t("job.engine"), report?.engine.version], [t("job.sha256"), job.sha256 && h("code", { class: "hash" }, job.sha256)], [t("job.id"), h("code", { class: "hash" }, job.id)],
      ]),
      report && h("ul", { class: "links" }, h("li", {}, h("a", { href: urls.reportHtml(this.id, language()), target: "_blank", rel: "noopener" }, t("job.reportHtml"))), h("li", {}, h("a", { href: urls.reportJson(this.id), target: "_blank", rel: "noopener" }, t("job.reportJson")))),
      this.session.may("submit") && h("p", {}, h("button", { type: "button", class: "danger", onclick: () => this.remove() }, t("job.delete")))].filter(Boolean));
  }

  /** On narrow windows decisions stay at hand at the lower edge. */
  bar() {
    if (!this.session.may("review") || !["done", "failed"].includes(this.job.state)) return h("div", {});
    return h("div", { class: "decision-bar", role: "group", "aria-label": t("decide.title") }, ["allow", "block", "escalate"].map((verdict) => h("button", { type: "button", class: `primary verdict-${verdict}`, onclick: () => this.decide(verdict) }, t(`decide.${verdict}`))));
  }

  decide(verdict) {
    if (!this.session.may("review") || !["done", "failed"].includes(this.job.state)) return;
    decideDialog(this.job, jobName(this.job), verdict, this.decided);
  }

  async remove() {
    const sure = await modal(t("job.delete.confirm"), (close) => h("div", {}, h("p", { class: "ellipsis" }, jobName(this.job)), h("div", { class: "buttons" }, h("button", { type: "button", class: "danger", onclick: () => close(true) }, t("job.delete")), h("button", { type: "button", autofocus: true, onclick: () => close(false) }, t("app.cancel")))));
    if (!sure) return;
    try {
      await api.remove(this.id);
      toast(t("job.deleted"), "good");
      location.hash = remembered.query || "#/";
    } catch (problem) {
      toast(problemText(problem), "bad");
    }
  }

  /** To the strongest moment before or after the present one, of stretches that are not plainly genuine. */
  jump(forward) {
    const peaks = this.lanes.flatMap((lane) => lane.segments).filter((one) => ["fake", "undetermined"].includes(verdictOf(one))).sort((a, b) => peakOf(a) - peakOf(b));
    const next = forward ? peaks.find((one) => peakOf(one) > this.at + 20) : peaks.filter((one) => peakOf(one) < this.at - 20).pop();
    if (!next) return;
    this.player.seek(peakOf(next));
    this.select(next.index);
  }

  key(event) {
    if (typing(event) || !this.job) return;
    const { key } = event;
    const onButton = /^(BUTTON|A|SUMMARY|VIDEO|AUDIO)$/.test(document.activeElement?.tagName ?? "");
    const onRange = document.activeElement?.type === "range" || document.activeElement?.type === "radio";
    const at = remembered.ids.indexOf(this.id);
    const go = (to) => remembered.ids[to] && (location.hash = `#/job/${remembered.ids[to]}`);
    const verdict = { a: "allow", b: "block", e: "escalate" }[key];
    if (verdict) this.decide(verdict);
    else if (key === "j" && at >= 0) go(at + 1);
    else if (key === "k" && at >= 0) go(at - 1);
    else if (key === "q") {
      remembered.at = this.id;
      location.hash = remembered.query || "#/";
    } else if (key === " " && !onButton && !onRange && this.player) this.player.toggle();
    else if ((key === "ArrowLeft" || key === "ArrowRight") && !onRange && !/^(VIDEO|AUDIO)$/.test(document.activeElement?.tagName ?? "") && this.player && this.kind() !== "image") this.player.seek(this.at + (key === "ArrowLeft" ? -1 : 1) * (event.shiftKey ? 5000 : 1000));
    else if ((key === "[" || key === "]") && this.player) this.jump(key === "]");
    else return;
    event.preventDefault();
  }
}
