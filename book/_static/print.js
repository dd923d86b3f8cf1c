/* Before a page is printed: drop-downs open and colours light.  Afterwards: as they were. */
(() => {
  "use strict";
  const paper = matchMedia("print");
  let before = null;

  const prepare = () => {
    if (before) return;
    const closed = [...document.querySelectorAll(".bd-article details:not([open])")];
    before = { closed, theme: document.documentElement.dataset.theme };
    closed.forEach((details) => (details.open = true));
    document.documentElement.dataset.theme = "light";
  };

  const restore = () => {
    if (!before || paper.matches) return;
    before.closed.forEach((details) => (details.open = false));
    document.documentElement.dataset.theme = before.theme;
    before = null;
  };

  addEventListener("beforeprint", prepare);
  addEventListener("afterprint", restore);
  // A preview changes the medium without these events.
  paper.addEventListener("change", () => (paper.matches ? prepare() : restore()));
})();
