// Beside a job: the calls of the tenant's webhook that tell of it.

import { api } from "./api.js";
import { h, toast } from "./dom.js";
import { t, when } from "./i18n.js";
import { deliveryBadge, facts, problemText } from "./chips.js";
import { term } from "./words.js";

/** How soon it is asked again while a call is to be made. */
const AGAIN_MS = 4000;
/** As many the server gives of one job. */
const MOST = 100;

/** Calls that were made: the server counts those that failed. */
export const tries = (one) => String(one.attempts + (one.state === "delivered" ? 1 : 0));

export class DeliveriesPanel {
  constructor(id, session) {
    Object.assign(this, { id, session, shown: "", stopped: false });
    this.title = h("h2", { id: "deliveries-title", tabindex: "-1" }, t("deliveries.ofJob"));
    // Most tenants have no webhook: without calls there is nothing to see.
    this.element = h("section", { class: "panel", "aria-labelledby": "deliveries-title", hidden: true });
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
  }

  async load() {
    clearTimeout(this.timer);
    try {
      const { deliveries } = await api.jobDeliveries(this.id);
      if (this.stopped) return;
      this.show(deliveries);
      if (deliveries.some((one) => one.state === "pending")) this.later();
    } catch (problem) {
      if (this.stopped) return;
      if (problem.status === 401) this.session.ended();
      else if (problem.status === 0 || problem.status >= 500) this.later();
      // A job that is gone has no calls; the view says so.
      else if (problem.status !== 404) this.fill([h("p", { class: "hint" }, problemText(problem))]);
    }
  }

  later() {
    this.timer = setTimeout(() => (document.hidden ? this.later() : this.load()), AGAIN_MS);
  }

  show(deliveries) {
    const text = JSON.stringify(deliveries);
    // What is the same stays, and with it the focus.
    if (text === this.shown) return;
    this.shown = text;
    if (!deliveries.length) this.element.hidden = true;
    else this.fill([h("ul", { class: "items" }, deliveries.map((one) => this.item(one))), deliveries.length >= MOST && h("p", { class: "hint" }, t("deliveries.bounded", { n: MOST }))]);
  }

  fill(content) {
    const focus = this.element.contains(document.activeElement) ? document.activeElement : null;
    this.element.replaceChildren(this.title, ...content.filter(Boolean));
    this.element.hidden = false;
    if (!focus) return;
    const same = [...this.element.querySelectorAll("button")].find((button) => button.dataset.id === focus.dataset.id);
    (same ?? this.title).focus({ preventScroll: true });
  }

  item(one) {
    const again = one.state === "dead" && this.session.may("admin");
    const button = again && h("button", { type: "button", "data-id": one.id, onclick: () => this.replay(one, button) }, t("deliveries.replay"));
    return h("li", { class: "item" }, h("h3", {}, term("event", one.event), " ", deliveryBadge(one.state)),
      facts([
        [t("deliveries.made"), when(one.created)], [t("deliveries.attempts"), tries(one)], [t("deliveries.next"), one.state === "pending" ? when(one.next_at) : null],
        [t("deliveries.error"), one.last_error && h("span", { lang: "en" }, one.last_error)],
      ]),
      button && h("p", { class: "buttons" }, button));
  }

  async replay(one, button) {
    button.disabled = true;
    try {
      await api.replay(one.id);
      toast(t("deliveries.replayed"), "good");
      // A button that is disabled has lost the focus, and this one goes.
      this.title.focus({ preventScroll: true });
      await this.load();
    } catch (problem) {
      button.disabled = false;
      button.focus({ preventScroll: true });
      toast(problemText(problem), "bad");
    }
  }
}
