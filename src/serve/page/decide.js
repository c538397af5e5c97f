// A reviewer's decision: the form beside a job, and the dialog that keys open.

import { api } from "./api.js";
import { announce, h, modal, toast } from "./dom.js";
import { t, when } from "./i18n.js";
import { problemText, verdictBadge } from "./chips.js";
import { term } from "./words.js";

const VERDICTS = ["allow", "block", "escalate"];

function fields(id, before) {
  const said = before ? String(before.fake) : "null";
  const radios = ["true", "false", "null"].map((value) => h("label", {}, h("input", { type: "radio", name: `${id}-fake`, value, checked: value === said }), " ", t(`decide.fake.${value}`)));
  const note = h("textarea", { id: `${id}-note`, rows: 2, maxlength: 4000 });
  const element = [h("fieldset", {}, h("legend", {}, t("decide.fake")), h("div", { class: "choices" }, radios)),
    h("label", { for: `${id}-note` }, t("decide.note")), note];
  return { element, value: () => ({ fake: { true: true, false: false, null: null }[radios.map((r) => r.querySelector("input")).find((r) => r.checked)?.value ?? "null"], note: note.value.trim() }) };
}

async function send(job, decision, done) {
  try {
    const updated = await api.decide(job.id, decision);
    toast(t("decide.saved", { verdict: term("verdict", decision.verdict) }), "good");
    done(updated);
    return true;
  } catch (problem) {
    toast(problemText(problem), "bad");
    return false;
  }
}

/** Asks for confirmation, fake or not, and a note, and sends it. `done(job)` gets the job as it is then. */
export async function decideDialog(job, name, verdict, done) {
  const decision = await modal(t(`decide.confirm.${verdict}`), (close) => {
    const form = fields("dialog", job.decision);
    return h("form", { onsubmit: (event) => {
      event.preventDefault();
      close({ verdict, ...form.value() });
    } }, h("p", { class: "ellipsis", dir: "auto" }, name), form.element, h("p", { class: "hint" }, t("decide.replace")),
    h("div", { class: "buttons" }, h("button", { type: "submit", class: `primary verdict-${verdict}`, autofocus: true }, t(`decide.${verdict}`)), h("button", { type: "button", onclick: () => close(null) }, t("app.cancel"))));
  });
  if (decision) await send(job, decision, done);
}

/** The panel in a job's view; `decisions` in order of time. */
export function decidePanel(job, decisions, may, done) {
  const title = h("h2", {}, t("decide.title"));
  const history = decisions.length ? h("details", { open: true }, h("summary", {}, t("decide.history")), h("ol", { class: "history" }, [...decisions].reverse().map((one) => h("li", {},
    verdictBadge(one.verdict), one.fake !== null && h("span", {}, ` ${t(`decide.said.${one.fake}`)}`),
    h("div", { class: "hint" }, `${one.by}, ${when(one.at)}`), one.note && h("p", { class: "note" }, one.note))))) : h("p", { class: "hint" }, t("decide.none"));
  const panel = (...content) => h("section", { class: "panel decide", id: "decide" }, title, ...content, history);
  if (!may) return panel(h("p", { class: "hint" }, t("decide.noScope")));
  if (!["done", "failed"].includes(job.state)) return panel(h("p", { class: "hint" }, t("decide.notYet")));
  const form = fields("panel", job.decision);
  const buttons = VERDICTS.map((verdict) => h("button", { type: "button", class: `primary verdict-${verdict}`, "aria-keyshortcuts": verdict[0], onclick: async () => {
    buttons.forEach((b) => (b.disabled = true));
    if (!(await send(job, { verdict, ...form.value() }, done))) buttons.forEach((b) => (b.disabled = false));
  } }, t(`decide.${verdict}`), " ", h("kbd", { "aria-hidden": "true" }, verdict[0])));
  return panel(form.element, h("div", { class: "buttons" }, buttons), h("p", { class: "hint" }, t("decide.replace")));
}

export function announceOutcome(job) {
  if (job.outcome) announce(t("job.finishedNow", { action: term("action", job.outcome.action) }));
}
