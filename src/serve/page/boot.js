// Runs before the page is drawn, so that it does not flash in the wrong colours or language.
"use strict";
(function () {
  function stored(name) {
    try {
      return localStorage.getItem("veriscope." + name);
    } catch (_) {
      return null; // Storage is forbidden here; the page works without.
    }
  }
  var root = document.documentElement;
  var dark = matchMedia("(prefers-color-scheme: dark)").matches;
  var theme = stored("theme");
  root.dataset.theme = theme === "dark" || theme === "light" ? theme : dark ? "dark" : "light";
  var lang = stored("lang") || navigator.language || "en";
  root.lang = /^zh/i.test(lang) ? "zh-CN" : "en";
})();
