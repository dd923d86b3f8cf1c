/* <gaussian-kl>: two Gaussians with means and widths to drag, and both KL divergences.

   Sliders carry the values (keyboard, screen readers); the handles in the picture move them. */
(() => {
  const SLIDERS = [
    { key: "meanP", label: "mean of p", min: -4, max: 4, value: 0 },
    { key: "scaleP", label: "width of p", min: 0.3, max: 3, value: 1 },
    { key: "meanQ", label: "mean of q", min: -4, max: 4, value: 1.5 },
    { key: "scaleQ", label: "width of q", min: 0.3, max: 3, value: 2 },
  ];
  const STEP = 0.05;
  const WIDTH = 640, HEIGHT = 260, BASE = 230, LEFT = -7, RIGHT = 7, TALL = 195;
  const toX = (x) => ((x - LEFT) / (RIGHT - LEFT)) * WIDTH;
  const fromX = (px) => LEFT + (px / WIDTH) * (RIGHT - LEFT);
  const density = (x, mean, scale) =>
    Math.exp(-((x - mean) ** 2) / (2 * scale ** 2)) / (scale * Math.sqrt(2 * Math.PI));

  /* ½ [log(σq²/σp²) + (σp² + (μp - μq)²)/σq² - 1], as fewshot_course's gaussian_kl. */
  const kl = (meanP, scaleP, meanQ, scaleQ) =>
    0.5 * (2 * Math.log(scaleQ / scaleP)
      + (scaleP ** 2 + (meanP - meanQ) ** 2) / scaleQ ** 2 - 1);

  const curve = (mean, scale, toY) => {
    const points = [];
    for (let i = 0; i <= 280; i += 1) {
      const x = LEFT + ((RIGHT - LEFT) * i) / 280;
      points.push(`${toX(x).toFixed(1)},${toY(density(x, mean, scale)).toFixed(1)}`);
    }
    return points.join(" ");
  };

  class GaussianKL extends HTMLElement {
    connectedCallback() {
      this.values = Object.fromEntries(SLIDERS.map((s) => [s.key, s.value]));
      const sliders = SLIDERS.map((s) => `
        <label class="gkl-slider"><span>${s.label}</span>
          <input type="range" name="${s.key}" min="${s.min}" max="${s.max}" step="${STEP}"
                 value="${s.value}"><output></output></label>`).join("");
      const handle = (name) => `<circle class="gkl-handle gkl-${name[name.length - 1].toLowerCase()}"
        data-key="${name}" r="8"></circle>`;
      this.innerHTML = `
        <figure class="gkl">
          <svg viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-label="">
            <line x1="0" y1="${BASE}" x2="${WIDTH}" y2="${BASE}" class="gkl-axis"></line>
            <polyline class="gkl-curve gkl-p"></polyline>
            <polyline class="gkl-curve gkl-q" stroke-dasharray="8 5"></polyline>
            <text class="gkl-name gkl-p-text">p</text><text class="gkl-name gkl-q-text">q</text>
            ${["meanP", "scaleP", "meanQ", "scaleQ"].map(handle).join("")}
          </svg>
          <figcaption>
            <div class="gkl-sliders">${sliders}</div>
            <p class="gkl-result" aria-live="polite">
              KL(p‖q) = <output name="forward"></output> nats,
              KL(q‖p) = <output name="backward"></output> nats</p>
          </figcaption>
        </figure>`;
      this.addEventListener("input", (event) => this.set(event.target.name, +event.target.value));
      const svg = this.querySelector("svg");
      svg.addEventListener("pointerdown", (event) => {
        const key = event.target.dataset && event.target.dataset.key;
        if (!key) return;
        this.dragged = key;
        svg.setPointerCapture(event.pointerId);
        event.preventDefault();
      });
      svg.addEventListener("pointermove", (event) => this.drag(event));
      svg.addEventListener("pointerup", () => { this.dragged = null; });
      svg.addEventListener("pointercancel", () => { this.dragged = null; });
      this.draw();
    }

    drag(event) {
      if (!this.dragged) return;
      const svg = this.querySelector("svg");
      const x = fromX(new DOMPoint(event.clientX, event.clientY)
        .matrixTransform(svg.getScreenCTM().inverse()).x);
      const mean = this.values[this.dragged.endsWith("P") ? "meanP" : "meanQ"];
      this.set(this.dragged, this.dragged.startsWith("mean") ? x : x - mean);
    }

    set(key, value) {
      const slider = SLIDERS.find((s) => s.key === key);
      const rounded = Math.round(value / STEP) * STEP;
      this.values[key] = Math.min(slider.max, Math.max(slider.min, rounded));
      this.draw();
    }

    draw() {
      const { meanP, scaleP, meanQ, scaleQ } = this.values;
      const find = (selector) => this.querySelector(selector);
      /* The higher peak fills the picture, but a flat one is not blown up. */
      const peak = Math.max(0.45, density(0, 0, scaleP), density(0, 0, scaleQ));
      const toY = (value) => BASE - (TALL * value) / peak;
      for (const s of SLIDERS) {
        const input = find(`input[name="${s.key}"]`);
        input.value = this.values[s.key];
        input.nextElementSibling.textContent = this.values[s.key].toFixed(2);
      }
      const place = (key, x, y) => {
        const circle = find(`circle[data-key="${key}"]`);
        circle.setAttribute("cx", toX(x));
        circle.setAttribute("cy", y);
      };
      for (const [name, mean, scale] of [["P", meanP, scaleP], ["Q", meanQ, scaleQ]]) {
        const lower = name.toLowerCase();
        find(`polyline.gkl-${lower}`).setAttribute("points", curve(mean, scale, toY));
        const top = toY(density(mean, mean, scale));
        place(`mean${name}`, mean, top);
        place(`scale${name}`, mean + scale, toY(density(mean + scale, mean, scale)));
        const text = find(`.gkl-${lower}-text`);
        text.setAttribute("x", toX(mean) + (name === "P" ? -24 : 16));
        text.setAttribute("y", top - 4);
      }
      const forward = kl(meanP, scaleP, meanQ, scaleQ).toFixed(3);
      const backward = kl(meanQ, scaleQ, meanP, scaleP).toFixed(3);
      find('output[name="forward"]').textContent = forward;
      find('output[name="backward"]').textContent = backward;
      find("svg").setAttribute("aria-label",
        `Two Gaussians. p has mean ${meanP.toFixed(2)} and width ${scaleP.toFixed(2)}; `
        + `q has mean ${meanQ.toFixed(2)} and width ${scaleQ.toFixed(2)}. `
        + `KL of p and q is ${forward}, KL of q and p is ${backward} nats.`);
    }
  }
  customElements.define("gaussian-kl", GaussianKL);
})();
