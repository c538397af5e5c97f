// For administrators: trying a policy over stored reports, and webhooks that could not be delivered.

import { api } from "./api.js";
import { h, toast } from "./dom.js";
import { percent, t, when } from "./i18n.js";
import { actionBadge, facts, notice, problemText } from "./chips.js";
import { tries } from "./deliveries.js";
import { line, term, word } from "./words.js";

export class PoliciesView {
  constructor(main, session) {
    this.main = main;
    this.session = session;
    this.current = h("div", {}, h("p", { class: "hint", role: "status" }, t("app.loading")));
    this.result = h("div", { "aria-live": "polite" });
    this.text = h("textarea", { id: "toml", rows: 14, spellcheck: "false", class: "code", required: true });
    const file = h("input", { type: "file", id: "toml-file", accept: ".toml,text/plain", onchange: async () => {
      if (file.files[0]) this.text.value = await file.files[0].text();
    } });
    main.replaceChildren(h("h1", { tabindex: "-1" }, t("policies.title")),
      h("section", { class: "panel", "aria-labelledby": "current-title" }, h("h2", { id: "current-title" }, t("policies.current")), this.current),
      session.may("admin") ? h("section", { class: "panel", "aria-labelledby": "dry-title" }, h("h2", { id: "dry-title" }, t("policies.dry")), h("p", {}, t("policies.dryHint")),
        h("form", { onsubmit: (event) => this.run(event) }, h("label", { for: "toml" }, t("policies.toml")), this.text, h("p", {}, h("label", { for: "toml-file" }, t("policies.file.open")), " ", file),
          h("div", { class: "buttons" }, this.button = h("button", { type: "submit", class: "primary" }, t("policies.run")))), this.result) : h("p", { class: "hint" }, t("admin.noScope")));
    this.load();
  }

  stop() {
    this.stopped = true;
  }

  async load() {
    try {
      const policies = await api.policies();
      if (this.stopped) return;
      const { policy_version: version, loaded_at: loaded, error, rules } = policies;
      this.current.replaceChildren(facts([[t("policies.version"), version], [t("policies.loaded"), when(loaded)]]), error ? h("div", { class: "fault" }, h("p", {}, t("policies.fault")), h("pre", {}, error)) : "", this.rules(rules));
    } catch (problem) {
      if (problem.status === 401) this.session.ended();
      else if (!this.stopped) this.current.replaceChildren(notice(t("error.title"), problemText(problem), { text: t("app.retry"), run: () => this.load() }));
    }
  }

  /** The tenant's rules as a table for people. */
  rules(rules) {
    const limit = (p) => (p === undefined ? "–" : percent(p));
    const detectors = ["face-swap", "voice-clone", "label-strip"];
    const actions = (entries) => facts(entries.map(([name, action]) => [name, actionBadge(action)]));
    return h("details", { open: true }, h("summary", {}, t("policies.rules")), h("div", { class: "rules" },
      h("table", {}, h("caption", { class: "hint" }, t("policies.thresholds", { s: (rules.least_ms / 1000).toFixed(1) })), h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, term("action", "review")), h("th", { scope: "col" }, term("action", "block")))),
        h("tbody", {}, detectors.map((one) => h("tr", {}, h("th", { scope: "row" }, term("detector", one)), h("td", { class: "number" }, limit(rules.review[one])), h("td", { class: "number" }, limit(rules.block[one])))))),
      h("div", {}, h("h3", {}, t("job.disposition")), actions(Object.entries(rules.dispositions).map(([state, action]) => [term("disposition", state), action]))),
      h("div", {}, h("h3", {}, t("policies.else")), actions([...Object.entries(rules.strip_evidence).map(([kind, action]) => [word("evidence", kind), action]), [t("policies.notJudged"), rules.not_judged], ...(rules.segments_not_judged ? [[t("policies.segmentsNotJudged"), rules.segments_not_judged]] : [])]))));
  }

  async run(event) {
    event.preventDefault();
    this.button.disabled = true;
    this.result.replaceChildren(h("p", { class: "hint" }, t("policies.running")));
    try {
      this.show(await api.dryRun(this.text.value));
    } catch (problem) {
      const wrong = [400, 415, 422].includes(problem.status);
      this.result.replaceChildren(h("div", { class: "fault" }, h("p", {}, wrong ? t("policies.wrong") : t("error.title")), wrong ? h("pre", {}, problem.message) : h("p", {}, problemText(problem))));
    } finally {
      this.button.disabled = false;
    }
  }

  show(result) {
    const { reports, actions, changes, more_changes: more } = result;
    const col = (key) => h("th", { scope: "col" }, t(key));
    const moved = actions.filter((one) => one.before !== one.after);
    this.result.replaceChildren(h("h3", {}, t("policies.result")), h("p", {}, t("policies.checked", { n: reports })),
      moved.length ? h("table", {}, h("thead", {}, h("tr", {}, col("policies.from"), col("policies.to"), col("policies.count"))), h("tbody", {}, moved.map((one) => h("tr", {}, h("td", {}, actionBadge(one.before)), h("td", {}, actionBadge(one.after)), h("td", { class: "number" }, String(one.count)))))) : h("p", {}, t("policies.nothing")),
      changes.length ? h("div", {}, h("h3", {}, t("policies.jobs")), h("ul", { class: "notes" }, changes.map((one) => h("li", {}, h("a", { href: `#/job/${one.job}` }, one.job), " ", actionBadge(one.before), " → ", actionBadge(one.after), h("ul", { class: "hint plain" }, one.because.map((because) => h("li", {}, line(because))))))), more ? h("p", { class: "hint" }, t("policies.bounded", { n: changes.length })) : "") : "");
  }
}

export class DeliveriesView {
  constructor(main, session) {
    this.session = session;
    this.state = "dead";
    this.place = h("div", { "aria-live": "polite" });
    const select = h("select", { id: "delivery-state", onchange: () => {
      this.state = select.value;
      this.load();
    } }, ["dead", "pending", "delivered"].map((state) => h("option", { value: state }, t(`deliveries.${state}`))));
    main.replaceChildren(h("h1", { tabindex: "-1" }, t("deliveries.title")), session.may("admin") ? h("div", {}, h("div", { class: "field" }, h("label", { for: "delivery-state" }, t("deliveries.state")), select), this.place) : h("p", { class: "hint" }, t("admin.noScope")));
    if (session.may("admin")) this.load();
  }

  stop() {
    this.stopped = true;
  }

  async load(cursor = null) {
    const state = this.state;
    if (!cursor) this.place.replaceChildren(h("p", { class: "hint" }, t("app.loading")));
    try {
      const page = await api.deliveries({ state, cursor });
      if (!this.stopped && state === this.state) this.show(page, cursor);
    } catch (problem) {
      if (problem.status === 401) this.session.ended();
      else if (!this.stopped) this.place.replaceChildren(notice(t("error.title"), problemText(problem), { text: t("app.retry"), run: () => this.load() }));
    }
  }

  show(page, appended) {
    const col = (key) => h("th", { scope: "col" }, t(key));
    const rows = page.deliveries.map((one) => {
      const row = h("tr", {}, h("th", { scope: "row" }, term("event", one.event), h("div", { class: "hint" }, when(one.created))), h("td", {}, one.job && h("a", { href: `#/job/${one.job}` }, one.job.slice(-12))), h("td", { class: "number" }, tries(one)), h("td", { lang: "en" }, one.last_error ?? ""), h("td", {}, one.state === "pending" ? when(one.next_at) : ""),
        h("td", {}, one.state !== "pending" && h("button", { type: "button", onclick: async (event) => {
          event.target.disabled = true;
          try {
            await api.replay(one.id);
            toast(t("deliveries.replayed"), "good");
            row.remove();
          } catch (problem) {
            event.target.disabled = false;
            toast(problemText(problem), "bad");
          }
        } }, t("deliveries.replay"))));
      return row;
    });
    const more = page.next ? h("button", { type: "button", onclick: () => this.load(page.next) }, t("queue.more")) : "";
    if (appended) {
      this.place.querySelector("tbody").append(...rows);
      this.place.querySelector(".more").replaceChildren(more);
    } else if (!rows.length) this.place.replaceChildren(notice(t("deliveries.none")));
    else this.place.replaceChildren(h("div", { class: "wide" }, h("table", {}, h("thead", {}, h("tr", {}, col("deliveries.event"), col("deliveries.job"), col("deliveries.attempts"), col("deliveries.error"), col("deliveries.next"), h("td", {}))), h("tbody", {}, rows))), h("div", { class: "more" }, more));
  }
}
