// A face crop with the heat map laid over it.

import { h } from "./dom.js";
import { moment, percent, t } from "./i18n.js";
import { heatPlace } from "./report.js";
import { urls } from "./api.js";

const WIDTH = 264;

/** Cells as a small picture whose opacity grows with their value; the browser smooths it when it is enlarged. */
function cells({ columns, rows, values }) {
  const small = h("canvas", { width: columns, height: rows });
  const pixels = small.getContext("2d").createImageData(columns, rows);
  values.forEach((value, i) => {
    const v = Math.min(1, Math.max(0, value));
    // From yellow to red by green alone, so that lightness tells it too.
    pixels.data.set([235 - 40 * v, Math.round(205 - 190 * v), 40, Math.round(255 * Math.min(1, v * 1.15))], 4 * i);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

/** The figure of one segment with a heat map; `crop` of the previews, or none. */
export function heatFigure(job, segment, crop) {
  const map = segment.heat_map;
  const place = heatPlace(map);
  const words = place ? t("heat.mostly", { place }) : t("heat.nowhere");
  const ratio = crop ? crop.height / crop.width : map.rows / map.columns;
  const [width, height] = [WIDTH * 2, Math.round(WIDTH * 2 * ratio)];
  const canvas = h("canvas", { width, height, role: "img", "aria-label": t("heat.alt", { time: moment(crop?.time_ms ?? segment.peak_ms), place: words }) });
  const context = canvas.getContext("2d");
  const heat = cells(map);
  let picture = null;
  let strength = 0.6;
  const draw = () => {
    context.globalAlpha = 1;
    context.fillStyle = "#777";
    context.fillRect(0, 0, width, height);
    if (picture) context.drawImage(picture, 0, 0, width, height);
    context.globalAlpha = strength;
    context.imageSmoothingQuality = "high";
    context.drawImage(heat, 0, 0, width, height);
    context.globalAlpha = 1;
  };
  draw();
  if (crop) {
    const image = new Image();
    image.onload = () => {
      picture = image;
      draw();
    };
    image.src = urls.preview(job, crop.file);
  }
  const id = `heat-${segment.index}`;
  return h("figure", { class: "heat" }, canvas,
    h("div", { class: "heat-scale", "aria-hidden": "true" }, h("span", {}, t("heat.low")), h("span", { class: "ramp" }), h("span", {}, t("heat.high"))),
    h("label", { for: id }, t("heat.strength")),
    h("input", { id, type: "range", min: 0, max: 100, value: 60, oninput: (event) => {
      strength = event.target.value / 100;
      draw();
    } }),
    h("figcaption", {}, h("p", {}, words), h("p", { class: "hint" }, t("heat.faint", { p: percent(segment.probability) })), !crop && h("p", { class: "hint" }, t("heat.noCrop"))));
}
