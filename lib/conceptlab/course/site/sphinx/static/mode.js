// The light or dark choice that the course's pages keep, for pages outside Sphinx.
(function () {
  var mode = "auto";
  try { mode = localStorage.getItem("mode") || "auto"; } catch (e) { /* storage may be shut off for files */ }
  if (mode === "light" || mode === "dark") document.documentElement.dataset.mode = mode;
})();
