/* <confidence-threshold>: how many pseudo-labels a threshold keeps, and how many of them are right.

   Confidences are those of the notebook on Gaussian mixtures (confidence-threshold-data.js). */
(() => {
  "use strict";
  const { Figure, axes, frame, keyEntry, line, unpack } = globalThis.figureParts;
  const DATA = globalThis.figureData["confidence-threshold"];
  const NAMES = Object.keys(DATA);

  /* Where the slider stops. They lie at equal distances on the axis: it is stretched near 1. */
  const STOPS = [...Array.from({ length: 19 }, (_, i) => (5 * i) / 100), 0.92, 0.94, 0.96, 0.98,
    0.99, 0.995, 0.999, 0.9995, 0.9999, 0.99999, 0.999999];
  const LAST = STOPS.length - 1;

  /* The place of a threshold on the axis, between the two stops beside it, and back. */
  const toPlace = (threshold) => {
    const next = STOPS.findIndex((stop) => stop >= threshold);
    if (next === 0) return 0;
    const below = STOPS[next - 1];
    return next - 1 + (threshold - below) / (STOPS[next] - below);
  };
  const fromPlace = (place) => {
    const below = Math.min(LAST - 1, Math.floor(place));
    return STOPS[below] + (place - below) * (STOPS[below + 1] - STOPS[below]);
  };

  const percent = (share) => `${(100 * share).toFixed(1)} %`;

  class ConfidenceThreshold extends Figure {
    build() {
      this.threshold = 0.9;
      this.choose(NAMES[0]);
      const options = NAMES.map((name) => `<option>${name}</option>`).join("");
      this.innerHTML = `
        <figure class="fig">
          <svg class="fig-picture fig-drag" role="img"></svg>
          <figcaption>
            <ul class="fig-key">${keyEntry("fig-a", "share that is kept")}
              ${keyEntry("fig-b", "share of the kept that is right")}</ul>
            <div class="fig-controls">
              <label>labelled by <select>${options}</select></label>
              <label class="fig-wide">threshold
                <input type="range" name="stop" min="0" max="${LAST}" step="1"></label>
              <input type="number" name="typed" min="0" max="${STOPS[LAST]}" step="any"
                aria-label="threshold, typed">
            </div>
            <p class="fig-result" aria-live="polite"></p>
          </figcaption>
        </figure>`;
      this.addEventListener("input", ({ target }) => {
        if (target.localName === "select") this.choose(target.value);
        else if (target.name === "stop") this.threshold = STOPS[target.value];
        else if (target.value !== "") {
          this.threshold = Math.min(STOPS[LAST], Math.max(0, +target.value));
          this.typing = true; // leave what stands in the field alone
        }
        this.draw();
        this.typing = false;
      });
      this.addEventListener("change", () => this.draw());
      const svg = this.find("svg");
      svg.addEventListener("pointerdown", (event) => {
        svg.setPointerCapture(event.pointerId);
        this.drag(event);
      });
      svg.addEventListener("pointermove", (event) => {
        if (svg.hasPointerCapture(event.pointerId)) this.drag(event);
      });
    }

    choose(name) {
      this.name = name;
      this.confidence = unpack(DATA[name].confidence, Float64Array);
      this.right = Array.from(DATA[name].right, Number);
    }

    drag(event) {
      const box = this.find("svg").getBoundingClientRect();
      const x = ((event.clientX - box.left) / box.width) * this.frame.width;
      const stop = Math.round(this.frame.fromX(x));
      this.threshold = STOPS[Math.min(LAST, Math.max(0, stop))];
      this.draw();
    }

    /* What a threshold keeps: how many pseudo-labels, and how many of them are right. */
    count(threshold) {
      let kept = 0, right = 0;
      this.confidence.forEach((value, i) => {
        if (value < threshold) return;
        kept += 1;
        right += this.right[i];
      });
      return { kept, right };
    }

    draw() {
      const all = this.confidence.length, { kept, right } = this.count(this.threshold);
      const who = `At a confidence of at least ${this.threshold}, the ${this.name} keeps`;
      const result = kept === 0 ? `${who} none of ${all} pseudo-labels.`
        : `${who} ${kept} of ${all} pseudo-labels (${percent(kept / all)}). Of these, ${right} are`
          + ` right (${percent(right / kept)}) and ${kept - right} wrong.`;
      if (this.find(".fig-result").textContent !== result) {
        this.find(".fig-result").textContent = result;
      }
      const place = toPlace(this.threshold), slider = this.find('input[name="stop"]');
      slider.value = place;
      slider.setAttribute("aria-valuetext", String(this.threshold));
      if (!this.typing) this.find('input[name="typed"]').value = this.threshold;

      const f = frame({ width: Math.max(280, this.clientWidth), height: 280, x: [0, LAST],
        y: [0, 1] });
      this.frame = f;
      const places = Array.from({ length: 10 * LAST + 1 }, (_, i) => i / 10);
      const counts = places.map((at) => this.count(fromPlace(at)));
      const marked = f.width > 480 ? [0, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 0.99999]
        : [0, 0.5, 0.9, 0.999];
      const ticks = {
        xTicks: marked.map((value) => [toPlace(value), String(value)]),
        yTicks: [0, 0.5, 1].map((value) => [value, `${100 * value} %`]),
        xName: "threshold", yName: "",
      };
      const x = f.toX(place);
      const dot = (share, name) => `<circle class="fig-handle ${name}" cx="${x}"
        cy="${f.toY(share)}" r="7"></circle>`;
      this.paint(f, `<rect class="fig-ground" width="${f.width}" height="${f.height}"></rect>`
        + axes(f, ticks)
        + `<path class="fig-axis" d="M${x},${f.top}V${f.bottom}"></path>`
        + line(f, places.map((at, i) => [at, counts[i].kept / all]), "fig-a")
        + line(f, places.map((at, i) =>
          [at, counts[i].kept ? counts[i].right / counts[i].kept : null]), "fig-b")
        + dot(kept / all, "fig-a") + (kept ? dot(right / kept, "fig-b") : ""),
      `Two curves against the confidence threshold. The share that is kept falls; the share of the`
        + ` kept that is right is drawn beside it. ${result}`);
    }
  }
  customElements.define("confidence-threshold", ConfidenceThreshold);
})();
