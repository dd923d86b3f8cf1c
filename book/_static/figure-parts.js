/* What the interactive figures share: a drawing as wide as its column, axes, packed numbers. */
globalThis.figureParts ??= (() => {
  "use strict";
  const LEFT = 56, RIGHT = 12, TOP = 10, BOTTOM = 42;

  /* A linear frame. Its width is the column's in CSS pixels, so text keeps its size on a phone. */
  const frame = ({ width, height, x, y }) => {
    const inner = { width: width - LEFT - RIGHT, height: height - TOP - BOTTOM };
    return {
      width, height, x, y,
      left: LEFT, right: width - RIGHT, top: TOP, bottom: height - BOTTOM,
      toX: (value) => LEFT + (inner.width * (value - x[0])) / (x[1] - x[0]),
      toY: (value) => TOP + inner.height * (1 - (value - y[0]) / (y[1] - y[0])),
      fromX: (pixel) => x[0] + ((x[1] - x[0]) * (pixel - LEFT)) / inner.width,
    };
  };

  /* Both axes with ticks, each [value, text], and names. */
  const axes = (f, { xTicks, yTicks, xName, yName }) => [
    `<path class="fig-axis" d="M${f.left},${f.top}V${f.bottom}H${f.right}"></path>`,
    ...xTicks.map(([value, text]) => `<path class="fig-axis" d="M${f.toX(value)},${f.bottom}v5">
      </path><text class="fig-text" text-anchor="middle" x="${f.toX(value)}"
      y="${f.bottom + 18}">${text}</text>`),
    ...yTicks.map(([value, text]) => `<path class="fig-axis" d="M${f.left},${f.toY(value)}h-5">
      </path><text class="fig-text" text-anchor="end" x="${f.left - 8}"
      y="${f.toY(value) + 4}">${text}</text>`),
    `<text class="fig-text" text-anchor="middle" x="${(f.left + f.right) / 2}"
      y="${f.height - 6}">${xName}</text>`,
    `<text class="fig-text" text-anchor="middle" transform="translate(13 ${(f.top + f.bottom) / 2})
      rotate(-90)">${yName}</text>`,
  ].join("");

  /* A line through [x, y] pairs; where y is null the line is broken. */
  const line = (f, pairs, name) => {
    let pen = "M";
    const steps = pairs.map(([x, y]) => {
      if (y === null) { pen = "M"; return ""; }
      const step = `${pen}${f.toX(x).toFixed(1)},${f.toY(y).toFixed(1)}`;
      pen = "L";
      return step;
    });
    return `<path class="fig-line ${name}" d="${steps.join("")}"></path>`;
  };

  /* An entry of the key, with a piece of its line or its mark. */
  const keyEntry = (name, text, mark = "") => `<li><svg class="fig-sample" viewBox="0 0 34 14"
    aria-hidden="true">${mark || `<path class="fig-line ${name}" d="M0,7H34"></path>`}</svg>
    ${text}</li>`;

  /* base64 of little-endian numbers, as book/_tools/figure_data.py writes it. */
  const unpack = (text, Kind) =>
    new Kind(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer);

  class Figure extends HTMLElement {
    connectedCallback() {
      if (!this.isBuilt) {
        this.build();
        this.isBuilt = true;
      }
      this.watch = new ResizeObserver(() => this.draw());
      this.watch.observe(this);
      this.draw();
    }

    disconnectedCallback() { this.watch.disconnect(); }

    find(selector) { return this.querySelector(selector); }

    /* Put a picture, and the sentence that stands for it, into the figure's svg. */
    paint(f, content, label, svg = this.find("svg.fig-picture")) {
      svg.setAttribute("viewBox", `0 0 ${f.width} ${f.height}`);
      svg.setAttribute("aria-label", label);
      svg.innerHTML = content;
    }
  }

  return { Figure, axes, frame, keyEntry, line, unpack };
})();
