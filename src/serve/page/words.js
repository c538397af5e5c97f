// What reports say in codes and in the engine's English, in the reader's language. The tables are
// words.json, which the program's own HTML report uses by the same rules (src/serve/plain.rs).

import { h } from "./dom.js";
import { language, t } from "./i18n.js";

let tables = { patterns: {}, en: {}, zh: {} };

/** Fetches the tables. Without them codes are shown as they are. */
export async function loadWords() {
  const response = await fetch("/assets/words.json");
  if (response.ok) tables = await response.json();
}

const known = (kind, code) => tables[language()]?.[kind]?.[code];

/** A code of that kind in words; the code itself where later versions have one that is not in the table. */
export const word = (kind, code) => known(kind, code) ?? code;

const fill = (template, value) => template.replace(/\{([^}]*)\}/g, (_, name) => value(name) ?? "");

/** How a label departs from the rule. */
export function deviation(code) {
  if (!code.startsWith("ingredient:")) return word("deviation", code);
  return fill(word("deviation", "ingredient:"), () => word("deviation", code.slice("ingredient:".length)));
}

/** `face-1` as people call it. */
export function trackName(id) {
  const [kind, n] = id.split("-");
  return known("track", kind) ? fill(known("track", kind), () => n ?? "") : id;
}

/** A list of words as the language writes it. */
export const listed = (words) => words.join(known("place", ",") ?? ", ");

export const reasonText = (reasons) => listed(reasons.map((reason) => word("reason", reason.code)));

/** The values of a pattern's `{names}` in a text that fits it, each as short as it can be; else null. */
function matched(pattern, text) {
  const parts = pattern.split(/\{([^}]*)\}/);
  if (!text.startsWith(parts[0])) return null;
  let rest = text.slice(parts[0].length);
  const values = {};
  for (let i = 1; i < parts.length; i += 2) {
    const literal = parts[i + 1];
    const last = i + 2 >= parts.length;
    const at = last ? (rest.endsWith(literal) ? rest.length - literal.length : -1) : rest.indexOf(literal);
    if (at < 0) return null;
    values[parts[i]] = rest.slice(0, at);
    rest = rest.slice(at + literal.length);
  }
  return rest === "" ? values : null;
}

function toldValue(name, value, depth) {
  switch (name) {
    case "action": case "detector": case "disposition_short": case "evidence": case "system": case "error":
      return known(name, value) ?? null;
    case "track":
      return trackName(value);
    case "where":
      return said("where", value, depth + 1) ?? trackName(value);
    case "line":
      return said("line", value, depth + 1) ?? value;
    case "reasons":
      return listed(value.split(", ").map((code) => word("reason", code)));
    default:
      return value;
  }
}

function said(kind, text, depth) {
  if (depth > 3) return null;
  let best = null;
  for (const [key, pattern] of Object.entries(tables.patterns[kind] ?? {})) {
    const own = fill(pattern, () => "").length;
    const values = matched(pattern, text);
    if (!values || (best && own <= best.own)) continue;
    const told = Object.entries(values).map(([name, value]) => [name, toldValue(name, value, depth)]);
    if (told.some(([, value]) => value === null) || known(kind, key) === undefined) continue;
    best = { own, text: fill(known(kind, key), (name) => Object.fromEntries(told)[name]) };
  }
  return best?.text ?? null;
}

/** A sentence in the reader's language; what no pattern knows stays the engine's English, marked as such. */
const spoken = (kind, text) => said(kind, text, 0) ?? h("span", { lang: "en" }, text);

/** A line of an outcome or of a disposition's evidence. */
export const line = (text) => spoken("line", text);
/** What a reason or a piece of evidence says in figures. */
export const detail = (text) => spoken("detail", text);

const KINDS = { kind: "media", verdict: "decision", disposition: "disposition_short", labelVerdict: "label_verdict" };

/** The name of a value of the API: the page's own string, else the shared table's, else the value. */
export function term(list, code) {
  const key = `${list}.${code}`;
  const own = t(key);
  return own === key ? word(KINDS[list] ?? list, code) : own;
}
