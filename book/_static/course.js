/* The framework's choice on every page, and names that the theme leaves out.

   sphinx-design keeps the choice of a tab in localStorage, obeys ?framework=tensorflow and keeps
   the tabs of a page in step.  This adds the bar's buttons and the numbers in the prose. */
(() => {
  "use strict";
  const KEY = "sphinx-design-tab-id-framework";
  const FRAMEWORKS = ["torch", "tensorflow"];

  const stored = () => {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // the reader allows no storage
    }
  };
  const store = (framework) => {
    try {
      localStorage.setItem(KEY, framework);
    } catch {
      // the choice then holds for this page only
    }
  };

  /* Before anything is drawn, so that no number flickers. */
  const asked = new URLSearchParams(location.search).get("framework");
  const known = (framework) => (FRAMEWORKS.includes(framework) ? framework : null);
  const root = document.documentElement;
  root.dataset.framework = known(asked) || known(stored()) || "torch";
  if (known(asked)) store(asked);

  const mark = (framework) => {
    root.dataset.framework = framework;
    document.querySelectorAll(".fw-choose").forEach((button) => {
      const on = button.dataset.framework === framework;
      button.setAttribute("aria-pressed", String(on));
      button.closest(".fw-item").classList.toggle("fw-on", on);
    });
  };

  const choose = (framework) => {
    store(framework);
    mark(framework);
    const selector = `.sd-tab-label[data-sync-group="framework"][data-sync-id="${framework}"]`;
    document.querySelectorAll(selector).forEach((label) => {
      label.previousElementSibling.checked = true;
    });
  };

  const watchTheTabs = () => {
    document.querySelectorAll(".fw-choose").forEach((button) => {
      button.addEventListener("click", () => choose(button.dataset.framework));
    });
    document.addEventListener("change", (event) => {
      const label = event.target.nextElementSibling;
      if (label?.dataset.syncGroup === "framework") mark(label.dataset.syncId);
    });
    choose(root.dataset.framework);
  };

  /* The theme's faults that axe finds. */
  const nameThings = () => {
    document.querySelectorAll("details > summary").forEach((summary) => {
      if (summary.textContent.trim() || summary.getAttribute("aria-label")) return;
      const link = summary.closest("li")?.querySelector("a");
      summary.setAttribute("aria-label", `Sections of ${link?.textContent.trim() || "this part"}`);
    });
    // A label that differs from the text on the button hides the button from voice control.
    document.querySelectorAll(".search-button__button[aria-label]").forEach((button) => {
      if (button.textContent.trim()) button.removeAttribute("aria-label");
    });
    document.querySelectorAll('.citation-list[role="list"] > .citation').forEach((entry) => {
      entry.setAttribute("role", "listitem");
    });
    // Whatever scrolls sideways must be reachable without a mouse.
    const wide = ".bd-article pre, .cell-table, .pst-scrollable-table-container, mjx-container, .output.text_html";
    const reach = () => document.querySelectorAll(wide).forEach((box) => {
      if (box.scrollWidth > box.clientWidth && !box.hasAttribute("tabindex")) box.tabIndex = 0;
    });
    reach();
    addEventListener("resize", reach);
    document.addEventListener("change", reach);
  };

  document.addEventListener("DOMContentLoaded", () => {
    watchTheTabs();
    nameThings();
  });
})();
