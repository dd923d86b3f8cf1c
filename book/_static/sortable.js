/* Tables with the class "sortable": a click on a heading sorts the rows by that column, another
   click turns the order round.  Without this script the table stands as the notebook wrote it. */
(() => {
  "use strict";

  /* The number that a cell starts with, or null: "+1.2 [0.3, 2.1]" counts as 1.2. */
  const number = (text) => {
    const found = text.replace("−", "-").match(/^\s*[+-]?\d+(\.\d+)?/);
    return found ? Number(found[0]) : null;
  };

  const compare = (a, b, direction) => {
    if (a.empty || b.empty) return a.empty - b.empty; // empty cells stay below
    const order = a.number !== null && b.number !== null
      ? a.number - b.number
      : a.text.localeCompare(b.text);
    return direction * order;
  };

  const sortBy = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => {
      const text = row.cells[column].textContent.trim();
      return { row, text, number: number(text), empty: Number(text === "") };
    });
    rows.sort((a, b) => compare(a, b, direction)); // stable: ties keep their order
    body.append(...rows.map(({ row }) => row));
  };

  const prepare = (table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort-button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") !== "descending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        sortBy(table, column, down ? -1 : 1);
      });
    });
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.sortable").forEach(prepare);
  });
})();
