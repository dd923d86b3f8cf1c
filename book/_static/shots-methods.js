/* <shots-methods>: two methods of the leaderboard against the number of labelled examples.

   Scores are those of the stored runs in PyTorch (shots-methods-data.js), one for each draw. */
(() => {
  "use strict";
  const { Figure, axes, frame, keyEntry, line } = globalThis.figureParts;
  const { boards: BOARDS, quantiles: T } = globalThis.figureData["shots-methods"];

  /* Mean and half width of Student's 95 % interval; T[n] is the quantile for n numbers. */
  const interval = (values) => {
    const n = values.length, mean = values.reduce((a, b) => a + b, 0) / n;
    if (n < 2) return { n, mean, half: null };
    const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
    return { n, mean, half: (T[n] * Math.sqrt(squares / (n - 1))) / Math.sqrt(n) };
  };

  /* Interval of one minus other over the draws that both have. */
  const paired = (one, other) => {
    const shared = Object.keys(one).filter((draw) => draw in other);
    return shared.length ? interval(shared.map((draw) => one[draw] - other[draw])) : null;
  };

  const number = (value, sign) => {
    const text = (100 * value).toFixed(1);
    return sign && value >= 0 ? `+${text}` : text;
  };
  const words = ({ mean, half, n }, sign = false) => (half === null
    ? `${number(mean, sign)} (n = ${n})`
    : `${number(mean, sign)} [${number(mean - half, sign)}, ${number(mean + half, sign)}]`);

  class ShotsMethods extends Figure {
    build() {
      const list = (names) => names.map((name) => `<option>${name}</option>`).join("");
      this.innerHTML = `
        <figure class="fig">
          <svg class="fig-picture" role="img"></svg>
          <figcaption>
            <ul class="fig-key"></ul>
            <div class="fig-controls">
              <label>board <select name="board">${list(Object.keys(BOARDS))}</select></label>
              <label>method <select name="one"></select></label>
              <label>against <select name="other"></select></label>
            </div>
            <p class="fig-result" aria-live="polite"></p>
            <div class="fig-table" tabindex="0" role="region" aria-label="Accuracy and difference">
            <table><thead><tr><th scope="col">examples a class</th></tr></thead>
              <tbody></tbody></table></div>
          </figcaption>
        </figure>`;
      this.choose(Object.keys(BOARDS)[0]);
      this.addEventListener("change", ({ target }) => {
        if (target.name === "board") this.choose(target.value);
        this.draw();
      });
    }

    /* Fill both lists with the methods of a board; the simplest one is the first. */
    choose(board) {
      this.board = board;
      const names = Object.keys(BOARDS[board]);
      for (const [name, chosen] of [["one", names[1]], ["other", names[0]]]) {
        const select = this.find(`select[name="${name}"]`);
        select.innerHTML = names.map((method) => `<option>${method}</option>`).join("");
        select.value = chosen;
      }
    }

    draw() {
      const board = BOARDS[this.board];
      const [one, other] = ["one", "other"].map((n) => this.find(`select[name="${n}"]`).value);
      const shots = [...new Set(Object.values(board).flatMap((of) => Object.keys(of).map(Number)))]
        .sort((a, b) => a - b);
      const rows = shots.map((k) => {
        const a = board[one][k], b = board[other][k];
        return { k, a: a && interval(Object.values(a)), b: b && interval(Object.values(b)),
          d: a && b && paired(a, b) };
      });
      this.find(".fig-key").innerHTML = keyEntry("fig-a", one) + keyEntry("fig-b", other);
      const cell = (value, sign) => `<td>${value ? words(value, sign) : "not run"}</td>`;
      this.find("thead tr").innerHTML = `<th scope="col">examples a class</th>
        <th scope="col">${one}, %</th><th scope="col">${other}, %</th>
        <th scope="col">difference, points</th>`;
      this.find("tbody").innerHTML = rows.map(({ k, a, b, d }) => `<tr><th scope="row">${k}</th>
        ${cell(a)}${cell(b)}${cell(d, true)}</tr>`).join("");
      const both = rows.filter(({ d }) => d), clear = both.filter(({ d }) =>
        d.half !== null && Math.abs(d.mean) > d.half);
      const result = one === other ? "Choose two different methods."
        : `${one} against ${other}: the paired difference excludes 0 at ${clear.length} of`
          + ` ${both.length} numbers of examples.`;
      if (this.find(".fig-result").textContent !== result) {
        this.find(".fig-result").textContent = result;
      }
      this.paintCurves(rows, result);
    }

    paintCurves(rows, result) {
      const places = rows.map((_, i) => i); // at equal distances, as on a log axis
      const f = frame({ width: Math.max(280, this.clientWidth), height: 280,
        x: [-0.4, places.length - 0.6], y: [0, 1] });
      const ticks = {
        xTicks: rows.map(({ k }, i) => [i, String(k)]),
        yTicks: [0, 0.25, 0.5, 0.75, 1].map((value) => [value, `${100 * value} %`]),
        xName: "labelled examples a class", yName: "",
      };
      const curve = (name, key, shift) => line(f, rows.map((row, i) =>
        [i + shift, row[key] ? row[key].mean : null]), name)
        + rows.map((row, i) => {
          const value = row[key];
          if (!value) return "";
          const x = f.toX(i + shift), bar = value.half === null ? "" : `<path class="fig-line
            fig-bar ${name}" d="M${x},${f.toY(Math.max(0, value.mean - value.half))}V${
            f.toY(Math.min(1, value.mean + value.half))}"></path>`;
          return `${bar}<circle class="fig-point ${name}" cx="${x}" cy="${f.toY(value.mean)}"
            r="5"></circle>`;
        }).join("");
      this.paint(f, axes(f, ticks) + curve("fig-a", "a", -0.03) + curve("fig-b", "b", 0.03),
        `Accuracy against labelled examples a class on the board ${this.board}. ${result} The`
          + " table below has the numbers.");
    }
  }
  customElements.define("shots-methods", ShotsMethods);
})();
