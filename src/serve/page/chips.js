// Small parts that several views show.

import { h } from "./dom.js";
import { percent, t } from "./i18n.js";
import { colour } from "./report.js";
import { term } from "./words.js";

const SIGNS = { allow: "✓", review: "?", block: "✕", escalate: "↑" };

export const actionBadge = (action, large = false) => h("span", { class: `badge action-${action}${large ? " large" : ""}` }, h("span", { "aria-hidden": "true" }, `${SIGNS[action] ?? "·"} `), term("action", action));

export const stateBadge = (state) => h("span", { class: `badge state-${state}` }, term("state", state));

export const deliveryBadge = (state) => h("span", { class: `badge delivery-${state}` }, t(`deliveries.${state}`));

export const verdictBadge = (verdict) => h("span", { class: `badge verdict-${verdict}` }, h("span", { "aria-hidden": "true" }, `${SIGNS[verdict] ?? "·"} `), term("verdict", verdict));

/** A detector's most suspicious stretch: its name, a bar and its probability. */
export function peakBar(peak) {
  const bar = h("span", { class: "bar", "aria-hidden": "true" }, h("span", { css: { width: `${Math.round(peak.probability * 100)}%`, "background-color": colour(peak.probability) } }));
  return h("span", { class: "peak-bar" }, h("span", {}, term("detector", peak.detector)), bar, h("span", { class: "number" }, percent(peak.probability)));
}

/** What a job is called: the name its sender gave, cut from paths and URLs. */
export function jobName(job) {
  const { source } = job;
  const whole = source.name ?? source.path ?? source.url ?? "";
  const last = whole.replace(/[?#].*$/, "").replace(/[\\/]+$/, "").split(/[\\/]/).pop();
  return last || whole || job.id;
}

/** The facts of a list: pairs of a term and what it says; empty ones left out. */
export const facts = (pairs) => h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== "–").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

/** What a state that is not the ordinary one shows: empty, loading, failed. */
export function notice(title, text = null, action = null) {
  return h("div", { class: "notice" }, h("p", { class: "notice-title" }, title), text && h("p", {}, text), action && h("p", {}, h("button", { type: "button", onclick: action.run }, action.text)));
}

export function problemText(problem) {
  if (problem.status === 0) return t("offline");
  const s = problem.retryAfter ?? 5;
  const ours = { 401: t("error.401"), 403: t("error.403"), 404: t("error.404"), 429: t("error.429", { s }), 503: t("error.503") }[problem.status];
  return ours ?? problem.message;
}
