"use strict";
// Sorting, where script is allowed. The page is whole without it.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const heads = [...table.querySelectorAll("thead th[data-sort]")];
  for (const head of heads) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numeric = head.dataset.sort === "number";
      const now = head.getAttribute("aria-sort");
      const descending = now === null ? numeric : now === "ascending";
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", descending ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[head.cellIndex];
        return numeric ? Number(cell.dataset.value) : cell.textContent;
      };
      const compare = (a, b) => (numeric ? value(a) - value(b) : value(a).localeCompare(value(b)));
      const rows = [...table.tBodies[0].rows].sort((a, b) => (descending ? compare(b, a) : compare(a, b)));
      table.tBodies[0].append(...rows);
    });
  }
}

// The attempts: filtered, fifty at a time, one opened. All texts go in as text.
(() => {
  const finder = document.getElementById("finder");
  const data = document.getElementById("index").textContent;
  const PAGE = 50;
  const [RUN, KEY, BANK, ROW, EPOCH, PROMPT, TOPIC, LABEL, WHY, QUESTION, Q_CHARS, ANSWER, A_CHARS, FLAGS] = Array(14).keys();
  const FIELDS = { run: RUN, label: LABEL, prompt: PROMPT, topic: TOPIC, bank: BANK };
  const make = (tag, text, name) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (name) element.className = name;
    return element;
  };
  const begin = () => {
    const { words, runs, rows } = JSON.parse(data);
    const word = (place) => (place < 0 ? "" : words[place]);
    const texts = new Map();
    for (const held of document.querySelectorAll("[data-attempt]")) texts.set(held.dataset.attempt, held);
    const [count, place] = [finder.querySelector("[role=status]"), finder.querySelector(".turn span")];
    const [earlier, later] = finder.querySelectorAll(".turn button");
    const body = finder.querySelector("tbody");
    const search = finder.querySelector("input");
    const selects = [...finder.querySelectorAll("select")];
    const shown = (row, field) => (field === RUN ? runs[row[RUN]] : field === LABEL && row[LABEL] < 0 ? "not judged" : word(row[field]));
    for (const select of selects) {
      const field = FIELDS[select.dataset.field];
      const counts = new Map();
      for (const row of rows) counts.set(row[field], (counts.get(row[field]) || 0) + 1);
      if (counts.size < 2 && field !== LABEL) select.parentElement.hidden = true;
      for (const [value, number] of counts) {
        const told = field === RUN ? runs[value] : value < 0 ? (field === LABEL ? "not judged" : "none") : words[value];
        const option = make("option", `${told} (${number.toLocaleString("en")})`);
        option.value = String(value);
        select.append(option);
      }
    }
    let heaps = null;
    const heap = () => {
      heaps ??= rows.map((row) => {
        const held = texts.get(`${row[RUN] + 1} ${row[KEY]}`);
        const own = [row[KEY], word(row[BANK]), word(row[PROMPT]), word(row[TOPIC]), word(row[LABEL]), word(row[WHY]), row[QUESTION], row[ANSWER], word(row[FLAGS])];
        return (own.join("\n") + (held ? "\n" + held.textContent : "")).toLowerCase();
      });
      return heaps;
    };
    let found = rows.map((_, number) => number);
    let first = 0;
    const opened = (row) => {
      const line = make("tr", undefined, "one");
      const cell = make("td");
      cell.colSpan = 9;
      const list = make("dl");
      for (const [name, value] of [["run", runs[row[RUN]]], ["topic", word(row[TOPIC])], ["label", shown(row, LABEL)], ["detail or reason", word(row[WHY])]]) {
        if (value) list.append(make("dt", name), make("dd", value));
      }
      cell.append(list);
      const held = texts.get(`${row[RUN] + 1} ${row[KEY]}`);
      if (held) cell.append(held.cloneNode(true));
      else {
        const told = make("p", "Its texts are not on this page: ");
        told.append(make("code", `redinstruct show RUN ${row[KEY]} --show-content`));
        cell.append(told);
      }
      line.append(cell);
      return line;
    };
    const line = (row) => {
      const made = make("tr");
      const head = make("th");
      head.scope = "row";
      const button = make("button", row[KEY]);
      button.type = "button";
      button.setAttribute("aria-expanded", "false");
      button.addEventListener("click", () => {
        const open = button.getAttribute("aria-expanded") === "true";
        button.setAttribute("aria-expanded", String(!open));
        if (open) made.nextSibling.remove();
        else made.after(opened(row));
      });
      head.append(button);
      const named = (value) => { const cell = make("td"); cell.append(make("bdi", value)); return cell; };
      const hashed = (hash, chars) => { const cell = make("td"); cell.append(make("code", chars < 0 ? "none" : hash), chars < 0 ? "" : ` ${chars.toLocaleString("en")}`); return cell; };
      made.append(head, named(`${word(row[BANK])} ${row[ROW] + 1}`), named(word(row[PROMPT]) + (row[EPOCH] > 1 ? `, epoch ${row[EPOCH]}` : "")),
        named(word(row[TOPIC])), make("td", shown(row, LABEL).replaceAll("_", " "), "label"), named(word(row[WHY])),
        hashed(row[QUESTION], row[Q_CHARS]), hashed(row[ANSWER], row[A_CHARS]), named(word(row[FLAGS])));
      return made;
    };
    const draw = () => {
      body.replaceChildren(...found.slice(first, first + PAGE).map((number) => line(rows[number])));
      count.textContent = `${found.length.toLocaleString("en")} of ${rows.length.toLocaleString("en")} attempts`;
      place.textContent = found.length ? `${(first + 1).toLocaleString("en")} to ${Math.min(first + PAGE, found.length).toLocaleString("en")}` : "";
      earlier.disabled = first === 0;
      later.disabled = first + PAGE >= found.length;
    };
    const filter = () => {
      const wanted = selects.filter((select) => select.value !== "").map((select) => [FIELDS[select.dataset.field], Number(select.value)]);
      const part = search.value.trim().toLowerCase();
      const all = part ? heap() : null;
      found = [];
      rows.forEach((row, number) => {
        if (wanted.every(([field, value]) => row[field] === value) && (!part || all[number].includes(part))) found.push(number);
      });
      first = 0;
      draw();
    };
    for (const select of selects) select.addEventListener("change", filter);
    search.addEventListener("input", filter);
    for (const button of [earlier, later]) {
      button.addEventListener("click", () => { first += PAGE * Number(button.dataset.turn); draw(); });
    }
    draw();
  };
  const soon = () => { finder.hidden = false; document.getElementById("listed").hidden = true; begin(); };
  // A long list is read when somebody comes near it: opening the page must not wait for it.
  if (data.length < 500000 || !("IntersectionObserver" in window)) { if (data.length > 40) soon(); return; }
  const near = new IntersectionObserver((seen) => {
    if (seen.some((one) => one.isIntersecting)) { near.disconnect(); soon(); }
  }, { rootMargin: "400px" });
  near.observe(document.getElementById("attempts"));
})();
