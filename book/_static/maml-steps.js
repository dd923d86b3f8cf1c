/* <maml-steps>: a sinusoid, and two networks that take inner steps on its five points.

   The weights are the notebook's (maml-steps-data.js); the steps are computed here. */
(() => {
  "use strict";
  const { Figure, axes, frame, keyEntry, line, unpack } = globalThis.figureParts;
  const DATA = globalThis.figureData["maml-steps"];
  const NAMES = ["MAML", "pretrained"];
  const HIDDEN = 40, MOST = 10, FIRST = 3; // the task of the page's still figure
  const GRID = Array.from({ length: 201 }, (_, i) => -5 + i / 20);

  /* Where each layer lies in the flat weights: 1 → 40 → 40 → 1, as torch's state_dict. */
  const W1 = 0, B1 = W1 + HIDDEN, W2 = B1 + HIDDEN, B2 = W2 + HIDDEN * HIDDEN, W3 = B2 + HIDDEN,
    B3 = W3 + HIDDEN;

  /* Hidden layers and output of the network at one x. */
  const forward = (w, x) => {
    const h1 = new Float64Array(HIDDEN), h2 = new Float64Array(HIDDEN);
    let output = w[B3];
    for (let i = 0; i < HIDDEN; i += 1) h1[i] = Math.max(0, w[W1 + i] * x + w[B1 + i]);
    for (let i = 0; i < HIDDEN; i += 1) {
      let sum = w[B2 + i];
      for (let j = 0; j < HIDDEN; j += 1) sum += w[W2 + i * HIDDEN + j] * h1[j];
      h2[i] = Math.max(0, sum);
      output += w[W3 + i] * h2[i];
    }
    return { h1, h2, output };
  };

  /* One inner step θ' = θ - α·∇L with L the mean squared error, by the chain rule backwards. */
  const innerStep = (w, xs, ys, rate) => {
    const gradient = new Float64Array(w.length);
    xs.forEach((x, n) => {
      const { h1, h2, output } = forward(w, x);
      const slope = (2 * (output - ys[n])) / xs.length;
      const below = new Float64Array(HIDDEN);
      gradient[B3] += slope;
      for (let i = 0; i < HIDDEN; i += 1) {
        gradient[W3 + i] += slope * h2[i];
        const delta = h2[i] > 0 ? slope * w[W3 + i] : 0;
        gradient[B2 + i] += delta;
        for (let j = 0; j < HIDDEN; j += 1) {
          gradient[W2 + i * HIDDEN + j] += delta * h1[j];
          below[j] += delta * w[W2 + i * HIDDEN + j];
        }
      }
      for (let j = 0; j < HIDDEN; j += 1) {
        const delta = h1[j] > 0 ? below[j] : 0;
        gradient[W1 + j] += delta * x;
        gradient[B1 + j] += delta;
      }
    });
    return w.map((value, i) => value - rate * gradient[i]);
  };

  const meanSquare = (a, b) => a.reduce((sum, value, i) => sum + (value - b[i]) ** 2, 0) / a.length;

  class MamlSteps extends Figure {
    build() {
      this.steps = 1;
      this.choose(FIRST);
      const tasks = DATA.tasks.map((_, i) => `<option value="${i}">${i + 1}</option>`).join("");
      const rows = NAMES.map((name) => `<tr data-name="${name}"><th scope="row">${name}</th>
        <td></td><td></td></tr>`).join("");
      this.innerHTML = `
        <figure class="fig">
          <svg class="fig-picture" role="img"></svg>
          <figcaption>
            <ul class="fig-key">${keyEntry("fig-a", "MAML")}${keyEntry("fig-b", "pretrained")}
              ${keyEntry("fig-true", "true sinusoid")}
              ${keyEntry("", "support points", '<circle class="fig-mark" cx="17" cy="7" r="6"></circle>')}
            </ul>
            <div class="fig-controls">
              <label>task <select name="task">${tasks}</select></label>
              <label class="fig-wide">inner steps
                <input type="range" name="steps" min="0" max="${MOST}" step="1"></label>
              <input type="number" name="typed" min="0" max="${MOST}" step="1"
                aria-label="inner steps, typed">
            </div>
            <p class="fig-result" aria-live="polite"></p>
            <table><thead><tr><th scope="col">mean squared error</th>
              <th scope="col">support points</th><th scope="col">whole curve</th></tr></thead>
              <tbody>${rows}</tbody></table>
          </figcaption>
        </figure>`;
      this.find("select").value = FIRST;
      this.addEventListener("input", ({ target }) => {
        if (target.name === "task") this.choose(+target.value);
        else if (target.value === "") return; // the reader is still typing
        else this.steps = Math.min(MOST, Math.max(0, Math.round(+target.value)));
        this.draw();
      });
      this.addEventListener("change", () => this.draw());
    }

    /* Take a task, and do all inner steps of both networks on it. */
    choose(number) {
      this.task = DATA.tasks[number];
      this.number = number;
      this.paths = {};
      for (const name of NAMES) {
        const path = [Float64Array.from(unpack(DATA.weights[name], Float32Array))];
        while (path.length <= MOST) {
          path.push(innerStep(path[path.length - 1], this.task.x, this.task.y, DATA.inner_lr));
        }
        this.paths[name] = path;
      }
    }

    predict(name, xs) { return xs.map((x) => forward(this.paths[name][this.steps], x).output); }

    truth(xs) { return xs.map((x) => this.task.amplitude * Math.sin(x - this.task.phase)); }

    /* Mean squared errors of a network: on the support points, and on a fine grid of x. */
    errors(name) {
      return [meanSquare(this.predict(name, this.task.x), this.task.y),
        meanSquare(this.predict(name, GRID), this.truth(GRID))];
    }

    draw() {
      const errors = Object.fromEntries(NAMES.map((name) => [name, this.errors(name)]));
      for (const name of NAMES) {
        this.querySelectorAll(`tr[data-name="${name}"] td`).forEach((cell, i) => {
          cell.textContent = errors[name][i].toFixed(2);
        });
      }
      this.find('input[name="steps"]').value = this.steps;
      this.find('input[name="typed"]').value = this.steps;
      const plural = this.steps === 1 ? "step" : "steps";
      const result = `After ${this.steps} inner ${plural}, the mean squared error on the whole curve`
        + ` is ${errors.MAML[1].toFixed(2)} for MAML and ${errors.pretrained[1].toFixed(2)} for`
        + " the pretrained network.";
      if (this.find(".fig-result").textContent !== result) {
        this.find(".fig-result").textContent = result;
      }
      const f = frame({ width: Math.max(280, this.clientWidth), height: 320, x: [-5, 5], y: [-6, 6] });
      const curve = (values, name) => line(f, GRID.map((x, i) => [x, values[i]]), name);
      const ticks = [-5, 0, 5].map((value) => [value, String(value).replace("-", "−")]);
      const points = this.task.x.map((x, i) => `<circle class="fig-mark" r="6" cx="${f.toX(x)}"
        cy="${f.toY(this.task.y[i])}"></circle>`).join("");
      this.paint(f, axes(f, { xTicks: ticks, yTicks: ticks, xName: "x", yName: "y" })
        + `<clipPath id="maml-steps-clip"><rect x="${f.left}" y="${f.top}"
          width="${f.right - f.left}" height="${f.bottom - f.top}"></rect></clipPath>
          <g clip-path="url(#maml-steps-clip)">${curve(this.truth(GRID), "fig-true")}
          ${curve(this.predict("pretrained", GRID), "fig-b")}
          ${curve(this.predict("MAML", GRID), "fig-a")}</g>${points}`,
      `Task ${this.number + 1}: a sinusoid of amplitude ${this.task.amplitude.toFixed(2)} with five`
        + ` support points, and the curves of two networks. ${result}`);
    }
  }
  customElements.define("maml-steps", MamlSteps);
})();
