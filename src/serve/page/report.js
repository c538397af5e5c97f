// What a report holds, put as the page shows it. Knows no elements.

import { language, moment, percent, t } from "./i18n.js";
import { listed, reasonText, term, trackName, word } from "./words.js";

const RANK = { face: 0, speech: 1, labels: 2 };

/** Track kind from a track's id, for findings that come before the report: `face-1`, `speech-1`, `labels`. */
const kindOf = (id) => id.replace(/-\d+$/, "");

/** `unjudged` where no probability could be given, which is more than not knowing. */
export const verdictOf = (segment) => (segment.probability === null || segment.probability === undefined ? "unjudged" : segment.verdict);

/** Where the probability lies, 9 times out of 10; never quite 0 or 1. */
export const interval = ({ probability: p, uncertainty: u }) => ({ low: Math.max(0.0005, p - (u ?? 0)), high: Math.min(0.9995, p + (u ?? 0)) });

/** Where one can go to see what speaks most for a fake. */
export const peakOf = (segment) => segment.peak_ms ?? segment.start_ms;

/** What the probability is of, with it: `99 % swapped`. Never `15 % genuine`, which would be read the wrong way round. */
export const likelihood = (segment) => t(`likelihood.${segment.detector}`, { p: percent(segment.probability) });

/** The verdict in the detector's own word: `swapped`, `no sign of removal`. */
export const verdictWord = (segment) => {
  const verdict = verdictOf(segment);
  return verdict === "fake" || verdict === "bonafide" ? t(`${verdict}.${segment.detector}`) : t(`segment.${verdict}`);
};

/** Verdict and probability as short as they can be understood. */
export function brief(segment) {
  if (verdictOf(segment) === "unjudged") return t("segment.unjudged");
  return verdictOf(segment) === "fake" ? likelihood(segment) : `${verdictWord(segment)} · ${likelihood(segment)}`;
}

export function segmentText(segment) {
  const judged = verdictOf(segment) !== "unjudged";
  const { low, high } = interval(segment);
  return t("segment.text", {
    detector: term("detector", segment.detector), from: moment(segment.start_ms), to: moment(segment.end_ms),
    verdict: verdictWord(segment),
    p: judged ? t("segment.p", { p: likelihood(segment), low: percent(low), high: percent(high) }) : "",
    why: segment.reasons.length ? ` (${reasonText(segment.reasons)})` : "",
  });
}

/** Orders segments by how much a reviewer should look at them: fakes, then what cannot be told. */
export function suspicion(segment) {
  const base = { fake: 2, undetermined: 1, bonafide: 0, unjudged: -1 }[verdictOf(segment)] ?? 0;
  return base + (segment.probability ?? 0);
}

/** Places of stretches that do not overlap in the same row: an array of rows of segments. */
function rows(segments) {
  const out = [];
  for (const segment of segments) {
    const row = out.find((r) => r[r.length - 1].end_ms <= segment.start_ms && r[r.length - 1].start_ms < segment.start_ms);
    if (row) row.push(segment);
    else out.push([segment]);
  }
  return out;
}

/**
 * One lane for each track: `{ id, kind, name, start_ms, end_ms, windows, reasons, segments, rows, worst }`,
 * faces before voices before labels. Segments carry `index`, their place in the report.
 */
export function lanes(tracks, segments) {
  const lanes = new Map();
  for (const track of tracks) lanes.set(track.id, { ...track, name: trackName(track.id), segments: [] });
  segments.forEach((segment, index) => {
    if (!lanes.has(segment.track)) {
      lanes.set(segment.track, { id: segment.track, kind: kindOf(segment.track), name: trackName(segment.track), start_ms: segment.start_ms, end_ms: segment.end_ms, boxes: [], windows: [], reasons: [], segments: [] });
    }
    const lane = lanes.get(segment.track);
    lane.segments.push({ ...segment, index });
    lane.start_ms = Math.min(lane.start_ms, segment.start_ms);
    lane.end_ms = Math.max(lane.end_ms, segment.end_ms);
  });
  for (const lane of lanes.values()) {
    lane.segments.sort((a, b) => a.start_ms - b.start_ms || b.end_ms - a.end_ms);
    lane.rows = rows(lane.segments);
    lane.worst = lane.segments.reduce((worst, one) => (verdictOf(one) !== "unjudged" && (!worst || suspicion(one) > suspicion(worst)) ? one : worst), null);
  }
  return [...lanes.values()].sort((a, b) => (RANK[a.kind] ?? 3) - (RANK[b.kind] ?? 3) || a.id.localeCompare(b.id, "en", { numeric: true }));
}

export function laneText(lane) {
  const worst = lane.worst ? t("lanes.worst", { p: brief(lane.worst), time: moment(peakOf(lane.worst)) }) : t("lanes.noWorst");
  return t("lanes.laneText", { name: lane.name, from: moment(lane.start_ms), to: moment(lane.end_ms), n: lane.segments.length, worst });
}

/** The parts of a face crop from the top down and where each ends, as `HeatMap::place` in the program has them. */
const PARTS = [["forehead", 0.2], ["eyes", 0.4], ["nose", 0.6], ["mouth", 0.8], ["chin", 1]];

/** Where most of a face was altered, in words; null where no place stands out. The program's own rule. */
export function heatPlace({ columns, rows: height, values }) {
  if (!columns || values.length !== columns * height) return null;
  const mean = (cells) => (cells.length ? cells.reduce((sum, cell) => sum + cell, 0) / cells.length : 0);
  const cells = (top, bottom, left, right) => {
    const out = [];
    for (let y = top; y < bottom; y += 1) for (let x = left; x < right; x += 1) out.push(values[y * columns + x]);
    return out;
  };
  const edge = Math.floor(columns / 6);
  let top = 0;
  const parts = PARTS.map(([name, end]) => {
    const part = { name, top: Math.round(top * height), bottom: Math.min(height, Math.round(end * height)) };
    top = end;
    return { ...part, heat: mean(cells(part.top, part.bottom, edge, columns - edge)) };
  });
  const hottest = Math.max(...parts.map((part) => part.heat));
  if (hottest < 0.25) return null;
  const named = parts.filter((part) => part.heat >= 0.8 * hottest);
  const names = named.map((part) => word("place", part.name));
  const last = names.pop();
  const and = language() === "en" ? ` ${word("place", "and")} ` : word("place", "and");
  let text = named.length >= 4 ? word("place", "the whole face") : names.length ? listed(names) + and + last : last;
  const half = (left, right) => mean(named.flatMap((part) => cells(part.top, part.bottom, left, right)));
  const middle = Math.floor(columns / 2);
  const [left, right] = [half(0, middle), half(columns - middle, columns)];
  if (left > 1.5 * right) text = listed([text, word("place", "left side")]);
  else if (right > 1.5 * left) text = listed([text, word("place", "right side")]);
  return text;
}

/** Colours for probabilities that people with any colour vision tell apart: blue, sand, vermilion. */
const STOPS = [[0, [38, 120, 190]], [0.5, [190, 165, 95]], [1, [213, 80, 10]]];

export function colour(p, alpha = 1) {
  let i = 0;
  while (i < STOPS.length - 2 && p > STOPS[i + 1][0]) i += 1;
  const [[a, from], [b, to]] = [STOPS[i], STOPS[i + 1]];
  const share = Math.min(1, Math.max(0, (p - a) / (b - a)));
  const [r, g, blue] = from.map((value, k) => Math.round(value + (to[k] - value) * share));
  return `rgba(${r},${g},${blue},${alpha})`;
}

/** The box of a face at that moment, between the two nearest that are known. */
export function boxAt(track, ms) {
  const boxes = track.boxes;
  if (!boxes.length || ms < track.start_ms - 500 || ms > track.end_ms + 500) return null;
  let after = boxes.findIndex((box) => box.time_ms >= ms);
  if (after < 0) after = boxes.length - 1;
  const b = boxes[after];
  const a = after > 0 ? boxes[after - 1] : b;
  if (a === b || b.time_ms === a.time_ms || ms >= b.time_ms) return b;
  const share = (ms - a.time_ms) / (b.time_ms - a.time_ms);
  const mix = (name) => a[name] + (b[name] - a[name]) * share;
  return { x: mix("x"), y: mix("y"), w: mix("w"), h: mix("h") };
}

export const segmentAt = (lane, ms) => lane.segments.find((one) => ms >= one.start_ms && ms <= one.end_ms) ?? null;

/** Of a list in order of `time_ms`, the one nearest to a moment. */
export function nearest(list, ms) {
  let best = null;
  for (const one of list) if (!best || Math.abs(one.time_ms - ms) < Math.abs(best.time_ms - ms)) best = one;
  return best;
}
