// Search over labels, tokens, words and concepts; the data lies in features.js, so it works from disk.
(function () {
  "use strict";
  var data = window.FEATURES, box = document.getElementById("words"), list = document.getElementById("hits");
  if (!data || !box) return;
  var model = document.getElementById("model"), only = document.getElementById("explained"), count = document.getElementById("count");
  var SHOWN = 60;
  data.models.forEach(function (name, i) { model.add(new Option(name, i)); });

  function plain(text) { return text.normalize("NFKD").replace(/[\u0300-\u036f]/g, "").toLowerCase(); }
  function words(text) { return plain(text).match(/[\p{L}\p{N}]+/gu) || []; }
  // Four letters stay (three before a plural's s, or y): "pared" is no form of "par".
  function stem(word) { return word.replace(/^(.{2,}[^aeiou])(?:y|ies)$|^(.{4,}?)(?:ings?|ers?|ed|es|s|e)$|^(.{3})s$/, "$1$2$3"); }

  var stop = new Set(data.stop || []), TIED = 0.4, LOOSE = 0.5, LABEL = 4, SIDES = 4;
  function telling(list) { var left = list.filter(function (w) { return !stop.has(w); }); return left.length ? left : list; }

  // What it reads, words in front, words on which it fires most, what it writes; then its label.
  var index = data.features.map(function (f) {
    return [f[6], f[7], f[8], f[9], words(f[3])].map(function (side) {
      return side.map(function (x) { return words(x).map(function (w) { return [w, stem(w)]; }); });
    });
  });

  function named(c, asked) {
    var title = words(c[1]).map(stem).join(" "), name = words(c[0].replace(/_/g, " ")).map(stem).join(" ");
    return asked === title || asked === name || (" " + title + " ").indexOf(" " + asked + " ") >= 0;
  }

  // Weights of the words to look for: 1 for what was typed, 1 for the words of a concept that was named, less for those
  // of the concept that has a typed word among its own (of several the one that names it first).
  function wanted(query) {
    var all = words(query), typed = telling(all).map(stem), terms = new Map(), reach = {}, titles = [];
    if (!typed.length) return null;
    var asked = all.map(stem).join(" "), meant = data.concepts.filter(function (c) { return named(c, asked); }), weight = 1;
    if (!meant.length) {
      weight = TIED;
      var place = function (c) {
        return c[2].findIndex(function (w) { return words(w).map(stem).some(function (x) { return typed.indexOf(x) >= 0; }); });
      };
      meant = data.concepts.filter(function (c) { return place(c) >= 0; });
      meant.sort(function (a, b) { return place(a) - place(b) || (a[0] < b[0] ? -1 : 1); });
      meant = meant.slice(0, 1);
    }
    meant.forEach(function (c) {
      titles.push(c[1]);
      // It lists the forms of its words: "outs", one of baseball, is hardly "out".
      c[2].forEach(function (w) { words(w).forEach(function (x) { if (!terms.has(stem(x))) terms.set(stem(x), LOOSE * weight); }); });
      c[2].forEach(function (w) { words(w).forEach(function (x) { terms.set(x, weight); }); });
      c[3].forEach(function (rows, m) { rows.forEach(function (r, i) { reach[m + ":" + r[0] + ":" + r[1]] = weight / (i + 2); }); });
    });
    typed.forEach(function (t) { terms.set(t, 1); });
    // Only what was typed may be the beginning of a word: "major", a word of golf, does not ask for "majority".
    return { terms: terms, long: typed.filter(function (t) { return t.length >= 4; }), reach: reach, titles: titles };
  }

  function score(f, sides, ask) {
    var total = 0, found = [];
    sides.forEach(function (items, s) {
      items.forEach(function (forms, i) {
        var weight = 0;
        forms.forEach(function (x) {
          var begins = ask.long.some(function (t) { return x[1].indexOf(t) === 0; });
          weight = Math.max(weight, begins ? 1 : 0, ask.terms.get(x[0]) || 0, ask.terms.get(x[1]) || 0);
        });
        if (!weight) return;
        total += (s === LABEL ? 0.3 : 1) * weight / (i + 1);
        if (s < SIDES) found.push([weight, f[6 + s][i]]);
      });
    });
    found.sort(function (a, b) { return b[0] - a[0]; }); // what was typed is shown first
    found = Array.from(new Set(found.map(function (x) { return x[1]; })));
    var reached = ask.reach[f[0] + ":" + f[1] + ":" + f[2]] || 0;
    return { total: total + reached, found: found, reached: reached > 0 };
  }

  function show() {
    var ask = wanted(box.value), m = Number(model.value);
    list.textContent = "";
    if (!ask) { count.textContent = "Type a word to search " + data.features.length.toLocaleString("en") + " features."; return; }
    var hits = [];
    data.features.forEach(function (f, i) {
      if (f[0] !== m || (only.checked && !f[10])) return;
      var s = score(f, index[i], ask);
      if (s.total > 0) hits.push([s, f]);
    });
    hits.sort(function (a, b) { return b[0].total - a[0].total; });
    var about = ask.titles.length ? " (other words and edits of the concept " + ask.titles.join(", ") + " count too)" : "";
    count.textContent = hits.length
      ? hits.length + " features" + about + (hits.length > SHOWN ? "; the best " + SHOWN + ":" : ":")
      : "No feature of this model reads or writes these words. Try one word, or another spelling.";
    hits.slice(0, SHOWN).forEach(function (h) {
      var f = h[1], item = document.createElement("li"), link = document.createElement("a"), text = document.createElement("span");
      link.href = "features/" + data.models[f[0]] + "/L" + String(f[1]).padStart(2, "0") + "_" + f[2] + ".html";
      link.textContent = "layer " + f[1] + ", feature " + f[2];
      text.textContent = (f[4] === null ? "" : " (AUROC " + f[4].toFixed(2) + ")") +
        (h[0].found.length ? " matches " + h[0].found.slice(0, 6).join(", ") + ". " : h[0].reached ? ": its edit reaches " + ask.titles.join(", ") + ". " : ". ") +
        (f[10] ? f[3] : "No label holds; writes " + f[9].slice(0, 5).join(", "));
      item.appendChild(link); item.appendChild(text); list.appendChild(item);
    });
  }

  var asked = new URLSearchParams(location.hash.slice(1)).get("words"); // "?q=" is the theme's own search
  if (asked) box.value = asked;
  box.form.addEventListener("submit", function (event) { event.preventDefault(); show(); });
  box.addEventListener("input", show); model.addEventListener("change", show); only.addEventListener("change", show);
  show();
})();
