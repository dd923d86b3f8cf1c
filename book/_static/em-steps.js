/* <em-steps>: EM for a mixture of three Gaussians in the plane, a step at a time.

   The points and the start are those of em-steps-data.js; the steps are computed here, as in
   fewshot_course's gmm. A covariance is [xx, xy, yy]. */
(() => {
  "use strict";
  const { Figure, axes, frame, keyEntry, line } = globalThis.figureParts;
  const DATA = globalThis.figureData["em-steps"];
  const LETTERS = ["A", "B", "C"], NAMES = ["fig-a", "fig-b", "fig-c"];
  const MOST = 30, REACH = 4.2; // steps; the picture shows at least -REACH to REACH
  const minus = (number, digits) => number.toFixed(digits).replace("-", "−");

  /* log π + log N(x; μ, Σ) */
  const logDensity = (weight, [mx, my], [xx, xy, yy], [x, y]) => {
    const determinant = xx * yy - xy * xy, dx = x - mx, dy = y - my;
    const distance = (yy * dx * dx - 2 * xy * dx * dy + xx * dy * dy) / determinant;
    return Math.log(weight) - Math.log(2 * Math.PI) - (Math.log(determinant) + distance) / 2;
  };

  /* Responsibilities and mean log-likelihood. A clamped point may belong to its class alone. */
  const eStep = (mixture, clamp) => {
    let total = 0;
    const responsibilities = DATA.points.map((point, i) => {
      const label = clamp ? DATA.labels[i] : -1;
      const joint = mixture.weights.map((weight, k) => (label === -1 || label === k
        ? logDensity(weight, mixture.means[k], mixture.covariances[k], point) : -Infinity));
      const largest = Math.max(...joint);
      const logSum = largest
        + Math.log(joint.reduce((sum, value) => sum + Math.exp(value - largest), 0));
      total += logSum;
      return joint.map((value) => Math.exp(value - logSum));
    });
    return { responsibilities, logLikelihood: total / DATA.points.length };
  };

  /* Weighted shares, means and covariances. */
  const mStep = (responsibilities, full) => {
    const each = LETTERS.map((_, k) => {
      const share = responsibilities.map((row) => row[k]);
      const count = share.reduce((sum, r) => sum + r, 0) + 10 * Number.EPSILON;
      const mean = (value) =>
        DATA.points.reduce((sum, point, i) => sum + share[i] * value(point), 0) / count;
      const mx = mean(([x]) => x), my = mean(([, y]) => y);
      const covariance = [mean(([x]) => (x - mx) ** 2),
        full ? mean(([x, y]) => (x - mx) * (y - my)) : 0, mean(([, y]) => (y - my) ** 2)];
      return { count, mean: [mx, my], covariance };
    });
    const all = each.reduce((sum, { count }) => sum + count, 0);
    return {
      weights: each.map(({ count }) => count / all),
      means: each.map(({ mean }) => mean),
      covariances: each.map(({ covariance }) => covariance),
    };
  };

  /* The mixture after 0, 1, … steps, each with its E-step. */
  const run = (full, clamp) => {
    const complete = (mixture) => ({ ...mixture, ...eStep(mixture, clamp) });
    const path = [complete(DATA.start)];
    while (path.length <= MOST) {
      path.push(complete(mStep(path[path.length - 1].responsibilities, full)));
    }
    return path;
  };

  /* A component's mark: a circle, a square or a triangle. */
  const mark = (k, x, y, certainty = 1) => {
    const shape = [`M-5,0a5,5 0 1,0 10,0a5,5 0 1,0 -10,0`, "M-4.5,-4.5h9v9h-9z",
      "M0,-6l5.5,9.5h-11z"][k];
    return `<path class="fig-point ${NAMES[k]}" fill-opacity="${certainty.toFixed(2)}"
      transform="translate(${x.toFixed(1)} ${y.toFixed(1)})" d="${shape}"></path>`;
  };

  /* The ellipse of so many standard deviations, by the axes of its covariance. */
  const ellipse = (f, k, [mx, my], [xx, xy, yy], deviations) => {
    const middle = (xx + yy) / 2, half = Math.hypot((xx - yy) / 2, xy);
    const angle = (-Math.atan2(2 * xy, xx - yy) / 2) * (180 / Math.PI); // y points down
    const unit = (f.toX(1) - f.toX(0)) * deviations;
    return `<ellipse class="fig-line fig-ellipse ${NAMES[k]}"
      rx="${unit * Math.sqrt(middle + half)}" ry="${unit * Math.sqrt(Math.max(0, middle - half))}"
      transform="translate(${f.toX(mx)} ${f.toY(my)}) rotate(${angle})"></ellipse>`;
  };

  class EmSteps extends Figure {
    build() {
      this.step = 0;
      this.full = true;
      this.clamp = false;
      this.path = run(this.full, this.clamp);
      const key = LETTERS.map((letter, k) => keyEntry(NAMES[k], `component ${letter}`,
        `<path class="fig-line ${NAMES[k]}" d="M0,7H34"></path>${mark(k, 17, 7)}`)).join("");
      const rows = LETTERS.map((letter) => `<tr><th scope="row">${letter}</th>${"<td></td>".repeat(4)}
        </tr>`).join("");
      this.innerHTML = `
        <figure class="fig">
          <div class="fig-pair"><div><svg class="fig-picture" role="img"></svg></div>
            <div><svg class="fig-chart fig-picture" role="img"></svg></div></div>
          <figcaption>
            <ul class="fig-key">${key}
              ${keyEntry("", "undecided: pale", mark(0, 17, 7, 0.1))}
              ${keyEntry("", "labelled, with its class", `<circle class="fig-ring" cx="17" cy="7"
                r="9"></circle>`)}</ul>
            <div class="fig-controls">
              <button type="button" name="start">Start</button>
              <button type="button" name="back">Back</button>
              <button type="button" name="forward">Forward</button>
              <label class="fig-wide">step
                <input type="range" name="step" min="0" max="${MOST}" step="1"></label>
            </div>
            <div class="fig-controls">
              <label>covariance <select name="covariance"><option value="full">full</option>
                <option value="diag">diagonal</option></select></label>
              <label><input type="checkbox" name="clamp">labelled points clamped</label>
            </div>
            <p class="fig-result" aria-live="polite"></p>
            <details><summary>The mixture in numbers</summary>
              <div class="cell-table" role="region" aria-label="The mixture in numbers"
                tabindex="0"><table><thead><tr><td></td>
                <th scope="col">weight</th><th scope="col">mean</th>
                <th scope="col">standard deviations</th><th scope="col">correlation</th></tr></thead>
                <tbody>${rows}</tbody></table></div></details>
            <details><summary>Log-likelihood of every step so far</summary>
              <ol class="fig-list" start="0"></ol></details>
          </figcaption>
        </figure>`;
      this.addEventListener("input", ({ target }) => {
        if (target.name === "step") this.step = +target.value;
        else {
          this.full = this.find("select").value === "full";
          this.clamp = this.find('input[name="clamp"]').checked;
          this.path = run(this.full, this.clamp);
        }
        this.draw();
      });
      this.addEventListener("click", ({ target }) => {
        const moves = { start: -MOST, back: -1, forward: 1 };
        if (target.name in moves) this.move(moves[target.name]);
      });
      this.addEventListener("keydown", (event) => {
        const moves = { ArrowLeft: -1, ArrowRight: 1 };
        if (event.target.localName !== "button" || !(event.key in moves)) return;
        this.move(moves[event.key]);
        event.preventDefault();
      });
    }

    move(by) {
      this.step = Math.min(MOST, Math.max(0, this.step + by));
      this.draw();
    }

    draw() {
      const now = this.path[this.step], before = this.path[this.step - 1];
      this.find('input[name="step"]').value = this.step;
      const gain = before ? now.logLikelihood - before.logLikelihood : 0;
      const rise = before ? `, ${gain.toFixed(5)} more than a step before` : "";
      const result = `${before ? `Step ${this.step}` : "Start"}: the mean log-likelihood is`
        + ` ${minus(now.logLikelihood, 5)}${rise}.`;
      if (this.find(".fig-result").textContent !== result) {
        this.find(".fig-result").textContent = result;
      }
      this.fillTables(now);
      this.drawPoints(now, result);
      this.drawChart(result);
    }

    fillTables(now) {
      this.querySelectorAll("tbody tr").forEach((row, k) => {
        const [xx, xy, yy] = now.covariances[k], cells = row.querySelectorAll("td");
        cells[0].textContent = now.weights[k].toFixed(3);
        cells[1].textContent = `(${now.means[k].map((value) => minus(value, 2)).join(", ")})`;
        cells[2].textContent = [xx, yy].map((value) => Math.sqrt(value).toFixed(2)).join(", ");
        cells[3].textContent = minus(xy / Math.sqrt(xx * yy), 2);
      });
      this.find(".fig-list").innerHTML = this.path.slice(0, this.step + 1)
        .map(({ logLikelihood }) => `<li>${minus(logLikelihood, 5)}</li>`).join("");
    }

    drawPoints(now, result) {
      const svg = this.find("svg"), width = Math.max(240, svg.parentElement.clientWidth);
      const inner = width - 68, height = Math.min(inner, 400);
      const wide = (REACH * inner) / height; // a unit of x is as long as a unit of y
      const f = frame({ width, height: height + 52, x: [-wide, wide], y: [-REACH, REACH] });
      const ticks = [-4, -2, 0, 2, 4].map((value) => [value, minus(value, 0)]);
      const points = DATA.points.map(([x, y], i) => {
        const row = now.responsibilities[i], largest = Math.max(...row);
        return mark(row.indexOf(largest), f.toX(x), f.toY(y), 0.1 + 1.35 * (largest - 1 / 3));
      });
      const labelled = DATA.points.flatMap(([x, y], i) => (DATA.labels[i] === -1 ? [] : [`
        <circle class="fig-ring" cx="${f.toX(x)}" cy="${f.toY(y)}" r="9"></circle>
        <text class="fig-text fig-letter" x="${f.toX(x) + 10}" y="${f.toY(y) - 6}">
          ${LETTERS[DATA.labels[i]]}</text>`]));
      const components = LETTERS.map((letter, k) => [1, 2].map((deviations) =>
        ellipse(f, k, now.means[k], now.covariances[k], deviations)).join("")
        + `<text class="fig-text fig-mean" x="${f.toX(now.means[k][0])}"
          y="${f.toY(now.means[k][1]) + 6}" text-anchor="middle">${letter}</text>`);
      const where = LETTERS.map((letter, k) => `${letter} at (${now.means[k].map((value) =>
        value.toFixed(1)).join(", ")}) with weight ${now.weights[k].toFixed(2)}`).join("; ");
      this.paint(f, axes(f, { xTicks: ticks, yTicks: ticks, xName: "x₁", yName: "x₂" })
        + `<clipPath id="em-steps-clip"><rect x="${f.left}" y="${f.top}"
          width="${f.right - f.left}" height="${f.bottom - f.top}"></rect></clipPath>
          <g clip-path="url(#em-steps-clip)">${points.join("")}${components.join("")}</g>
          ${labelled.join("")}`,
      `${DATA.points.length} points and three Gaussians, drawn as ellipses of one and two standard`
        + ` deviations: ${where}. ${result}`, svg);
    }

    drawChart(result) {
      const svg = this.find(".fig-chart"), values = this.path.map((state) => state.logLikelihood);
      const low = Math.floor(values[0] * 5) / 5, high = Math.ceil(values[MOST] * 5) / 5;
      const f = frame({ width: Math.max(220, svg.parentElement.clientWidth), height: 240,
        x: [0, MOST], y: [low, high] });
      const xTicks = [0, 10, 20, 30].map((value) => [value, String(value)]);
      const yTicks = [low, (low + high) / 2, high].map((value) => [value, minus(value, 1)]);
      const shown = values.slice(0, this.step + 1).map((value, i) => [i, value]);
      const [x, y] = shown[this.step];
      this.paint(f, axes(f, { xTicks, yTicks, xName: "step", yName: "mean log-likelihood" })
        + line(f, shown, "")
        + `<circle class="fig-mark" r="6" cx="${f.toX(x)}" cy="${f.toY(y)}"></circle>`,
      `Mean log-likelihood against the step, a curve that never falls. ${result}`, svg);
    }
  }
  customElements.define("em-steps", EmSteps);
})();
