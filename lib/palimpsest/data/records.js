// A table of records that can be searched and sorted (`data.markup.records_as_html`), in the book and in an audit's report. The table
// is complete without this script. No dollar sign stands here: the report is filled in by `string.Template`.
document.addEventListener("DOMContentLoaded", () => {
  const all = (root, what) => [...root.querySelectorAll(what)];
  all(document, ".records").forEach((box) => {
    const body = box.querySelector("tbody"), rows = [...body.rows];
    const search = box.querySelector("input"), found = box.querySelector(".found");
    box.querySelector(".play").hidden = false;
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/);
      rows.forEach((row) => (row.hidden = !words.every((word) => row.textContent.toLowerCase().includes(word))));
      found.textContent = "found: " + rows.filter((row) => !row.hidden).length + " of " + rows.length;
    });
    const value = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent;
    const compare = (a, b) => (isNaN(a) || isNaN(b) ? a.localeCompare(b, "en", { numeric: true }) : a - b || 0);
    all(box, "thead th").forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = head.textContent;
      head.replaceChildren(button);
      button.addEventListener("click", () => {
        const turn = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        all(box, "thead th").forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", turn === 1 ? "ascending" : "descending");
        body.append(...[...rows].sort((a, b) => turn * compare(value(a, column), value(b, column))));
      });
    });
  });
});
