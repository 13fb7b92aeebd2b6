// Sorts the rows of a table by the column whose head is clicked. Reference rows stay
// behind the line that announces them.
"use strict";

function number(cell) {
  const text = cell.textContent.replace(/,/g, "").replace("–", "");
  const found = /^[<]?[+-]?(\d+\.?\d*|\.\d+)/.exec(text.trim());
  return found ? parseFloat(found[0].replace("<", "")) : NaN;
}

function order(column, descending) {
  return (a, b) => {
    const [x, y] = [a.cells[column], b.cells[column]];
    const [m, n] = [number(x), number(y)];
    if (isNaN(m) && isNaN(n)) {
      const words = x.textContent.localeCompare(y.textContent);
      return descending ? -words : words;
    }
    if (isNaN(m) || isNaN(n)) return isNaN(m) ? 1 : -1;
    return descending ? n - m : m - n;
  };
}

function sort(table, column, descending) {
  const body = table.tBodies[0];
  const groups = [[]];
  for (const row of body.rows) {
    const announces = [...row.cells].slice(1).every((cell) => !cell.textContent.trim());
    if (announces) groups.push([row], []);
    else groups[groups.length - 1].push(row);
  }
  groups.forEach((group) => group.sort(order(column, descending)));
  body.append(...groups.flat());
}

function sortable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const descending = head.getAttribute("aria-sort") !== "descending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      sort(table, column, descending);
    });
  });
}

document$.subscribe(() => {
  document
    .querySelectorAll(".md-content table:not([class]):not([data-sortable])")
    .forEach((table) => {
      if (!table.tHead || table.tBodies[0].rows.length < 3) return;
      table.dataset.sortable = "";
      sortable(table);
    });
});
