// The queue: filters, the list of jobs, cursor paging, polling.

import { api } from "./api.js";
import { announce, h, toast, typing } from "./dom.js";
import { ago, moment, t, when } from "./i18n.js";
import { actionBadge, jobName, notice, peakBar, problemText, stateBadge, verdictBadge } from "./chips.js";
import { decideDialog } from "./decide.js";
import { term, word } from "./words.js";

const PAGE = 25;
/** The most that one request may ask for. */
const MOST = 200;
const POLL_MS = 4000;
const CHOICES = {
  state: ["queued", "running", "fetching", "done", "failed", "cancelled"],
  action: ["allow", "review", "block"],
  priority: ["live", "normal", "batch"],
  disposition: ["confirmed", "possible", "suspected", "undetermined", "none"],
  detector: ["face-swap", "voice-clone", "label-strip"],
  decided: ["false", "true"],
};
const LABELS = { decided: (value) => t(`queue.decided.${value}`) };

/** The ids that the list last showed, so that a job's view knows its neighbours, and where the list was left. */
export const remembered = { ids: [], at: null, query: "" };

export class QueueView {
  constructor(main, params, session) {
    Object.assign(this, { main, session, jobs: [], cursor: null, pages: 1, stopped: false });
    this.filter = Object.fromEntries([...Object.keys(CHOICES), "q"].map((name) => [name, params.get(name) ?? ""]));
    this.rows = new Map();
    this.onKey = (event) => this.key(event);
    document.addEventListener("keydown", this.onKey);
    this.build();
    this.load(true);
    this.timer = setInterval(() => document.hidden || this.load(false), POLL_MS);
    this.onShow = () => document.hidden || this.load(false);
    document.addEventListener("visibilitychange", this.onShow);
  }

  stop() {
    this.stopped = true;
    clearInterval(this.timer);
    clearTimeout(this.searching);
    this.aborter?.abort();
    document.removeEventListener("keydown", this.onKey);
    document.removeEventListener("visibilitychange", this.onShow);
  }

  build() {
    const select = (name) => h("div", { class: "field" }, h("label", { for: `f-${name}` }, t(`queue.${name}`)),
      h("select", { id: `f-${name}`, onchange: (event) => this.change(name, event.target.value) },
        h("option", { value: "" }, t("queue.any")),
        CHOICES[name].map((value) => h("option", { value, selected: this.filter[name] === value }, (LABELS[name] ?? ((v) => term(name, v)))(value)))));
    this.search = h("input", { id: "f-q", type: "search", value: this.filter.q, maxlength: 200, autocomplete: "off", "aria-keyshortcuts": "/", oninput: (event) => {
      clearTimeout(this.searching);
      const { value } = event.target;
      this.searching = setTimeout(() => this.change("q", value.trim()), 350);
    } });
    this.clear = h("button", { type: "button", class: "link", hidden: !this.filtered(), onclick: () => {
      location.hash = "#/";
    } }, t("queue.clear"));
    const chosen = Object.entries(this.filter).some(([name, value]) => name !== "q" && value !== "");
    this.summary = h("summary", {}, this.filtersText());
    const wide = matchMedia("(min-width: 45rem)").matches;
    this.status = h("p", { class: "hint queue-status" });
    this.place = h("div", {});
    this.moreButton = h("button", { type: "button", hidden: true, onclick: () => this.more() }, t("queue.more"));
    this.main.replaceChildren(
      h("h1", { tabindex: "-1" }, t("queue.title")),
      h("search", { role: "search", "aria-label": t("queue.filters") },
        h("div", { class: "field search" }, h("label", { for: "f-q" }, t("queue.search"), " ", h("kbd", { "aria-hidden": "true" }, "/")), this.search),
        h("details", { class: "filters", open: wide || chosen }, this.summary, h("div", { class: "fields" }, Object.keys(CHOICES).map(select))),
        this.clear),
      this.status, this.place, h("div", { class: "more" }, this.moreButton));
    this.place.append(h("p", { class: "hint", role: "status" }, t("app.loading")));
  }

  filtered() {
    return Object.values(this.filter).some((value) => value !== "");
  }

  /** Filters live in the address, so that they can be shared and come back to. */
  change(name, value) {
    if (this.filter[name] === value) return;
    this.filter[name] = value;
    const query = new URLSearchParams(Object.entries(this.filter).filter(([, v]) => v !== ""));
    history.replaceState(null, "", query.size ? `#/?${query}` : "#/");
    this.clear.hidden = !this.filtered();
    this.summary.textContent = this.filtersText();
    this.pages = 1;
    this.jobs = [];
    this.cursor = null;
    this.aborter?.abort();
    this.busy = false;
    this.load(true);
  }

  filtersText() {
    const chosen = Object.entries(this.filter).filter(([name, value]) => name !== "q" && value !== "").length;
    return `${t("queue.filters")}${chosen ? ` (${chosen})` : ""}`;
  }

  async load(first) {
    if (this.busy) return;
    this.busy = true;
    const aborter = new AbortController();
    this.aborter = aborter;
    try {
      const limit = Math.min(MOST, Math.max(PAGE, this.pages * PAGE));
      const page = await this.page(limit, null, aborter.signal);
      if (this.stopped || aborter.signal.aborted) return;
      const before = new Map(this.jobs.map((job) => [job.id, JSON.stringify(job)]));
      // Pages beyond what one request gives are kept as they were; the newest are what changes.
      const rest = this.jobs.length > MOST ? this.jobs.slice(MOST).filter((job) => !page.jobs.some((one) => one.id === job.id)) : [];
      this.jobs = [...page.jobs, ...rest];
      if (!rest.length) this.cursor = page.next;
      const changed = page.jobs.filter((job) => before.get(job.id) !== JSON.stringify(job)).length;
      if (first || changed || before.size !== this.jobs.length) this.show(before);
      this.tell(first ? null : changed);
      if (first) this.restore();
    } catch (problem) {
      this.failed(problem);
    } finally {
      if (this.aborter === aborter) this.busy = false;
    }
  }

  /** That many jobs from a cursor on, where there are as many: the server may give fewer at a time. */
  async page(limit, cursor, signal) {
    const all = { jobs: [], next: cursor };
    for (let tries = 0; tries < 8; tries += 1) {
      const page = await api.jobs({ ...this.filter, limit: limit - all.jobs.length, cursor: all.next }, signal);
      all.jobs.push(...page.jobs);
      all.next = page.next;
      if (!page.next || all.jobs.length >= limit) break;
    }
    return all;
  }

  async more() {
    if (this.busy || !this.cursor) return;
    this.busy = true;
    try {
      const page = await this.page(PAGE, this.cursor);
      if (this.stopped) return;
      this.pages += 1;
      const from = this.jobs.length;
      this.jobs.push(...page.jobs.filter((job) => !this.rows.has(job.id)));
      this.cursor = page.next;
      this.show(null);
      this.tell(null);
      this.rows.get(this.jobs[from]?.id)?.querySelector("a").focus();
    } catch (problem) {
      this.failed(problem);
    } finally {
      this.busy = false;
    }
  }

  failed(problem) {
    if (this.stopped || problem.name === "AbortError") return;
    if (problem.status === 401) this.session.ended();
    else if (!this.jobs.length) this.place.replaceChildren(notice(t("error.title"), problemText(problem), { text: t("app.retry"), run: () => this.load(true) }));
    else if (problem.status !== 0) toast(problemText(problem), "bad");
  }

  tell(changed) {
    const time = new Intl.DateTimeFormat(undefined, { timeStyle: "medium" }).format(new Date());
    this.status.textContent = `${t("queue.count", { n: this.jobs.length })}${this.cursor ? "" : ` · ${t("queue.all")}`} · ${t("queue.updated", { time })}`;
    for (const place of this.tbody?.querySelectorAll("time") ?? []) place.textContent = ago(place.dateTime);
    if (changed === null) announce(t("queue.count", { n: this.jobs.length }));
  }

  restore() {
    if (remembered.at && this.rows.has(remembered.at)) this.rows.get(remembered.at).querySelector("a").focus();
    remembered.at = null;
  }

  show(before) {
    remembered.ids = this.jobs.map((job) => job.id);
    remembered.query = location.hash;
    this.moreButton.hidden = !this.cursor;
    if (!this.jobs.length) {
      this.rows.clear();
      this.place.replaceChildren(this.filtered() ? notice(t("queue.none"), null, { text: t("queue.clear"), run: () => (location.hash = "#/") })
        : h("div", { class: "notice" }, h("p", { class: "notice-title" }, t("queue.empty")), h("p", {}, t("queue.emptyHint")), h("pre", {}, h("code", {}, `curl -F priority=normal -F file=@clip.mp4 ${location.origin}/v1/jobs`))));
      return;
    }
    if (!this.place.querySelector("table")) {
      const col = (name) => h("th", { scope: "col", role: "columnheader" }, t(`queue.col.${name}`));
      this.tbody = h("tbody", { role: "rowgroup" });
      this.rows.clear();
      this.place.replaceChildren(h("table", { class: "jobs", role: "table" }, h("caption", { class: "sr" }, t("queue.caption")),
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, col("media"), col("outcome"), col("findings"), col("labels"), col("when"), col("decision"))), this.tbody));
    }
    const focused = document.activeElement?.closest?.("tr")?.dataset.id;
    for (const job of this.jobs) {
      const text = JSON.stringify(job);
      if (this.rows.has(job.id) && before?.get(job.id) === text) continue;
      const row = this.row(job);
      this.rows.get(job.id)?.replaceWith(row);
      this.rows.set(job.id, row);
    }
    const wanted = new Set(this.jobs.map((job) => job.id));
    for (const [id, row] of this.rows) {
      if (wanted.has(id)) continue;
      row.remove();
      this.rows.delete(id);
    }
    this.jobs.forEach((job, i) => {
      const row = this.rows.get(job.id);
      if (this.tbody.children[i] !== row) this.tbody.insertBefore(row, this.tbody.children[i] ?? null);
    });
    if (focused && document.activeElement === document.body) this.rows.get(focused)?.querySelector("a").focus({ preventScroll: true });
  }

  row(job) {
    const cell = (name, ...content) => h("td", { role: "cell", "data-label": t(`queue.col.${name}`) + t("colon"), class: `col-${name}` }, content);
    const summary = job.summary;
    const { progress } = job;
    const running = !["done", "failed", "cancelled"].includes(job.state);
    const share = progress?.duration_ms ? Math.min(1, progress.media_ms / progress.duration_ms) : null;
    const name = jobName(job);
    const kind = [summary?.kind && term("kind", summary.kind), summary?.duration_ms ? moment(summary.duration_ms) : null, job.priority !== "normal" && term("priority", job.priority), job.reference].filter(Boolean).join(" · ");
    // What is next to nothing would only hide what is something.
    const peaks = (summary?.peaks ?? []).filter((peak) => peak.probability >= 0.05).sort((a, b) => b.probability - a.probability);
    const labels = summary?.labels?.filter((one) => one !== "encoder") ?? [];
    return h("tr", { role: "row", "data-id": job.id, onclick: (event) => {
      // The whole row opens the job; its link is what keys and screen readers use.
      if (!event.target.closest("a, button") && !String(getSelection())) location.hash = `#/job/${job.id}`;
    } },
    h("th", { scope: "row", role: "rowheader", class: "col-media" }, h("a", { href: `#/job/${job.id}`, class: "ellipsis", dir: "auto" }, name), h("div", { class: "hint ellipsis" }, kind)),
    cell("outcome", job.outcome ? [actionBadge(job.outcome.action), h("div", { class: "hint" }, t("queue.disposition"), t("colon"), term("disposition", job.outcome.disposition))] : stateBadge(job.state),
      running && job.state === "running" && h("progress", { max: 1, value: share ?? undefined, "aria-label": t("job.progress") }),
      job.state === "failed" && h("div", { class: "hint" }, job.error ? word("error", job.error.code) : term("state", "failed"))),
    cell("findings", peaks.length ? peaks.map(peakBar) : job.state === "done" ? h("span", { class: "hint" }, t("queue.nofindings")) : h("span", { class: "hint" }, "–")),
    cell("labels", labels.length || summary?.strip_evidence?.length ? h("ul", { class: "plain" }, labels.map((one) => h("li", {}, word("system", one))), (summary.strip_evidence ?? []).map((one) => h("li", { class: "warn" }, word("evidence", one)))) : h("span", { class: "hint" }, "–")),
    cell("when", h("time", { datetime: job.submitted_at, title: when(job.submitted_at) }, ago(job.submitted_at))),
    cell("decision", job.decision ? [verdictBadge(job.decision.verdict), h("div", { class: "hint" }, job.decision.by)] : h("span", { class: "hint" }, t("queue.nodecision"))));
  }

  current() {
    const id = document.activeElement?.closest?.("tr[data-id]")?.dataset.id;
    return this.jobs.find((job) => job.id === id) ?? null;
  }

  key(event) {
    if (event.key === "Escape" && document.activeElement === this.search) {
      this.rows.get(this.jobs[0]?.id)?.querySelector("a").focus();
      // Browsers would empty the field, and the filter with it.
      event.preventDefault();
      return;
    }
    if (typing(event)) return;
    const job = this.current();
    const at = job ? this.jobs.indexOf(job) : -1;
    const go = (i) => {
      const row = this.rows.get(this.jobs[Math.min(this.jobs.length - 1, Math.max(0, i))]?.id);
      row?.querySelector("a").focus();
      row?.scrollIntoView({ block: "nearest" });
    };
    const verdict = { a: "allow", b: "block", e: "escalate" }[event.key];
    if (event.key === "j") {
      if (at === this.jobs.length - 1 && this.cursor) this.more();
      else go(at + 1);
    } else if (event.key === "k") go(at - 1);
    else if (event.key === "/") this.search.focus();
    else if (verdict && job && this.session.may("review") && ["done", "failed"].includes(job.state)) {
      decideDialog(job, jobName(job), verdict, (updated) => {
        const before = new Map(this.jobs.map((one) => [one.id, JSON.stringify(one)]));
        this.jobs = this.jobs.map((one) => (one.id === updated.id ? updated : one));
        this.show(before);
        this.rows.get(updated.id)?.querySelector("a").focus();
      });
    } else return;
    event.preventDefault();
  }
}
