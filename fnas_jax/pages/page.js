"use strict";
// Draws the figures of the page, and sorts its tables.
(function () {
  const narrow = window.innerWidth < 600;
  const config = {
    responsive: true,
    displaylogo: false,
    displayModeBar: narrow ? false : "hover",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d", "autoScale2d"]],
  };
  function draw(plot) {
    const place = plot.querySelector(".figure");
    const figure = JSON.parse(plot.querySelector("script").textContent);
    if (narrow) {
      figure.layout.margin = Object.assign({}, figure.layout.margin, { l: 40, r: 8 });
      figure.layout.font = Object.assign({}, figure.layout.font, { size: 11 });
      figure.layout.dragmode = false; // a finger scrolls the page
    }
    Plotly.newPlot(place, figure.data, figure.layout, config).then(function () {
      place.dataset.drawn = "yes";
    });
  }
  document.querySelectorAll(".plot").forEach(function (plot) {
    const folded = plot.closest("details:not([open])");
    if (!folded) return draw(plot);
    // Where nothing is seen, nothing has a width yet.
    folded.addEventListener("toggle", function () { draw(plot); }, { once: true });
  });
  function value(row, column) {
    const cell = row.cells[column];
    if (cell.dataset.key === undefined) return cell.textContent;
    return cell.dataset.key === "" ? null : Number(cell.dataset.key);
  }
  function compare(a, b) {
    return typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  }
  function sort(table, column) {
    const heads = table.tHead.rows[0].cells, head = heads[column];
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = Array.from(table.tBodies[0].rows);
    rows.sort(function (p, q) {
      const a = value(p, column), b = value(q, column);
      if (a === null || b === null) return (a === null) - (b === null); // unknown ones last
      return up ? compare(a, b) : compare(b, a);
    });
    rows.forEach(function (row) { table.tBodies[0].appendChild(row); });
  }
  document.querySelectorAll("table.sortable").forEach(function (table) {
    Array.from(table.tHead.rows[0].cells).forEach(function (head, column) {
      head.tabIndex = 0;
      head.addEventListener("click", function () { sort(table, column); });
      head.addEventListener("keydown", function (event) {
        if (event.key === "Enter") sort(table, column);
      });
    });
  });
})();
