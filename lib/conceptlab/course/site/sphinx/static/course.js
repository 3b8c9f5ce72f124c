// Tables that sort at a click, and code that can be scrolled by keyboard.
document.addEventListener("DOMContentLoaded", function () {
  "use strict";
  document.querySelectorAll("table.sortable").forEach(function (table) {
    table.querySelectorAll("thead th").forEach(function (head, column) {
      head.querySelector("button").addEventListener("click", function () {
        var down = head.getAttribute("aria-sort") === "ascending", body = table.tBodies[0];
        table.querySelectorAll("th").forEach(function (th) { th.removeAttribute("aria-sort"); });
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        Array.from(body.rows).map(function (row) {
          var text = row.cells[column].textContent, number = parseFloat(text);
          return { row: row, key: isNaN(number) ? text : number, empty: text === "" };
        }).sort(function (a, b) {
          if (a.empty !== b.empty) return a.empty ? 1 : -1;
          var order = typeof a.key === "number" && typeof b.key === "number" ? a.key - b.key : String(a.key).localeCompare(String(b.key));
          return down ? -order : order;
        }).forEach(function (entry) { body.appendChild(entry.row); });
      });
    });
  });
  // Names for what the theme leaves without one, or names otherwise than it shows.
  document.querySelectorAll(".bd-sidenav details > summary").forEach(function (fold) {
    var link = fold.closest("li").querySelector("a");
    fold.setAttribute("aria-label", "Pages of " + (link ? link.textContent.trim() : "this section"));
  });
  document.querySelectorAll("details.hide > summary, .search-button-field").forEach(function (named) {
    named.removeAttribute("aria-label");
  });
  document.querySelectorAll("div.highlight pre, div.output pre, .pst-scrollable-table-container").forEach(function (block) {
    if (block.scrollWidth > block.clientWidth && !block.hasAttribute("tabindex")) block.tabIndex = 0;
  });
});
