"use strict";
// The table is whole in the page for readers without scripts; here it is cut into pages, since browsers lay out slowly what is long.
(() => {
  const PAGE = 100;
  const element = (id) => document.getElementById(id);
  const [body] = element("scores").tBodies;
  const heads = [...element("scores").tHead.rows[0].cells];
  const collator = new Intl.Collator("en", { numeric: true });
  const all = [...body.rows].map((row, place) => ({
    row, place,
    texts: [...row.cells].map((cell) => cell.textContent),
    sought: `${row.cells[0].textContent}\n${row.lastElementChild.textContent}`.toLowerCase(),
  }));
  let shown = all, first = 0;

  function draw() {
    body.replaceChildren(...shown.slice(first, first + PAGE).map((entry) => entry.row));
    const last = Math.min(first + PAGE, shown.length);
    element("shown").textContent = shown.length
      ? `${first + 1}–${last} of ${shown.length}` + (shown.length < all.length ? ` (${all.length} in all)` : "")
      : "none matches";
    element("previous").disabled = first === 0;
    element("next").disabled = last === shown.length;
  }

  function filter() {
    const words = element("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    shown = all.filter((entry) => words.every((word) => entry.sought.includes(word)));
    first = 0;
    draw();
  }

  function sort(column) {
    const head = heads[column];
    const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
    const numeric = head.classList.contains("num");
    for (const entry of all) {
      const text = entry.texts[column];
      entry.key = numeric ? Number(text.replace("−", "-").replace("inf", "Infinity")) : text;
      // Rows without a value are last in either order.
      entry.empty = numeric ? Number.isNaN(entry.key) : text === "";
    }
    all.sort((a, b) => a.empty - b.empty
      || (a.empty || a.key === b.key ? 0 : sign * (numeric ? (a.key < b.key ? -1 : 1) : collator.compare(a.key, b.key)))
      || a.place - b.place);
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
    filter();
  }

  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });
  function turn(step) {
    first += step;
    draw();
  }
  element("filter").addEventListener("input", filter);
  element("previous").addEventListener("click", () => turn(-PAGE));
  element("next").addEventListener("click", () => turn(PAGE));
  element("controls").hidden = false;
  draw();

  // Two signals at once cannot be compared. The next one of an utterance continues where the last one was.
  document.addEventListener("play", ({ target }) => {
    for (const player of document.querySelectorAll("audio")) {
      if (player === target || player.paused) continue;
      player.pause();
      if (player.closest("article") === target.closest("article")) target.currentTime = player.currentTime;
    }
  }, true);
})();
