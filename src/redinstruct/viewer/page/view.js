// The list of runs. Text only ever enters the document as text (textContent); every request goes to this page's own
// server, and nothing that is asked changes anything.
"use strict";

startPage({ restart: "Start “redinstruct view” again and open its new address." });

let runs = [];
let before = null;   // the first of two runs to compare
let busy = false;

async function doing(work) {
  if (busy) return;
  busy = true;
  document.body.setAttribute("aria-busy", "true");
  $("problem").hidden = true;
  try { await work(); } catch (error) {
    $("problem").textContent = error.message;
    $("problem").hidden = false;
  } finally {
    busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

const make = (tag, text, name) => {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (name) element.className = name;
  return element;
};
const cell = (of, name, ...parts) => {
  const made = make("td", undefined, name), held = make("div");
  made.dataset.of = of;
  made.setAttribute("role", "cell");   // a narrow screen shows no table, and has one all the same
  held.append(...parts);
  made.append(held);
  return made;
};
const named = (text) => make("bdi", text);
const percent = (share) => (100 * share).toFixed(1);
const count = (number) => number.toLocaleString("en");

function picture(worst) {
  const space = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(space, "svg");
  const draw = (tag, values) => {
    const element = document.createElementNS(space, tag);
    for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
    svg.append(element);
  };
  const at = (share) => (100 * share).toFixed(2) + "%";
  svg.setAttribute("aria-hidden", "true");   // the same stands beside it in words
  for (const share of [0, 0.5, 1]) draw("line", { class: "grid", x1: at(share), x2: at(share), y1: 1, y2: 13 });
  draw("line", { class: "reach", x1: at(worst.low), x2: at(worst.high), y1: 7, y2: 7 });
  draw("circle", { class: "dot", cx: at(worst.estimate), cy: 7, r: 4.5 });
  return svg;
}

function when(run) {
  if (run.began === null) return "";
  const at = new Date(run.began * 1000);
  if (Number.isNaN(at.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}

function took(seconds) {
  if (seconds === null) return "";
  return seconds < 120 ? `${Math.round(seconds)} s` : seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

function show(places) {
  return doing(async () => {
    const { address } = await ask("open", { runs: places, content: $("content").checked });
    location.assign(address);
  });
}

function compare(run) {
  if (before === null) {
    before = run.place;
    $("said").textContent = `${run.place} is the run before: choose the run after.`;
    return list();
  }
  const first = before;
  before = null;
  if (first === run.place) { $("said").textContent = "No run is chosen."; return list(); }
  list();
  return show([first, run.place]);
}

const readable = (run) => run.kind === "evaluation" || run.kind === "utility";

function row(run) {
  const made = make("tr");
  const head = make("th");
  made.setAttribute("role", "row");
  head.setAttribute("role", "rowheader");
  head.scope = "row";
  head.append(named(run.place));
  if (run.kind !== "evaluation") head.append(" ", make("span", run.kind, run.kind === "unreadable" ? "bad" : "quiet"));
  const asked = run.kind === "evaluation"
    ? `${run.measure === "over_refusal" ? "over-refusal" : "attacks"}: ${run.banks.join(", ")}; ${run.prompts.join(", ")}` : run.told;
  const rate = [];
  if (run.worst) {
    rate.push(make("strong", percent(run.worst.estimate) + " %"), ` [${percent(run.worst.low)}, ${percent(run.worst.high)}] `,
      make("span", `${run.worst.prompt}, ${count(run.worst.judged)} judged`, "quiet"), picture(run.worst));
  } else if (run.problem) rate.push(make("span", run.problem, "bad"));
  const done = run.planned === null || run.planned === run.done ? count(run.done) : `${count(run.done)} of ${count(run.planned)}`;
  const buttons = make("td", undefined, "doing");
  buttons.setAttribute("role", "cell");
  if (readable(run)) {
    const open = make("button", "open");
    open.type = "button";
    open.setAttribute("aria-label", `open the report of ${run.place}`);
    open.addEventListener("click", () => show([run.place]));
    const second = make("button", before === null ? "compare" : before === run.place ? "before" : "with this");
    second.type = "button";
    second.setAttribute("aria-pressed", String(before === run.place));
    second.setAttribute("aria-label", before === null ? `compare ${run.place} with another run` : before === run.place ? `${run.place} is before; choose none` : `${run.place} is after`);
    second.addEventListener("click", () => compare(run));
    buttons.append(open, second);
  }
  made.append(head, cell("model", "", named(run.model)), cell("asked", "", named(asked)), cell("judge", "", named(run.judge)),
    cell("done", "num", done), cell("highest rate", "rate", ...rate),
    cell("made", "", when(run).slice(0, 10), make("br"), make("span", `${when(run).slice(11)} ${run.seconds === null ? "" : "in " + took(run.seconds)}`, "quiet")), buttons);
  return made;
}

function list() {
  const part = $("text").value.trim().toLowerCase();
  const kind = $("kind").value;
  const found = runs.filter((run) => (!kind || run.kind === kind) &&
    [run.place, run.model, run.judge, run.kind, run.measure, run.told, run.problem, ...run.banks, ...run.prompts].join("\n").toLowerCase().includes(part));
  const focused = document.activeElement && document.activeElement.getAttribute("aria-label");
  document.querySelector("tbody").replaceChildren(...found.map(row));
  if (focused) {
    const place = focused.match(/(?:compare )?(.*?)(?: with another run| is before; choose none| is after)$/);
    for (const button of place ? document.querySelectorAll(".doing button[aria-pressed]") : []) {
      if (button.getAttribute("aria-label").includes(place[1])) { button.focus(); break; }
    }
  }
  if (before === null) $("said").textContent = `${count(found.length)} of ${count(runs.length)} runs`;
}

function read() {
  return doing(async () => {
    const told = await ask("runs", {});
    runs = told.runs;
    $("folder").textContent = told.folder;
    const kinds = [...new Set(runs.map((run) => run.kind))];
    const chosen = $("kind").value;
    $("kind").replaceChildren(...["", ...kinds].map((kind) => {
      const option = make("option", kind || "all");
      option.value = kind;
      return option;
    }));
    $("kind").value = kinds.includes(chosen) ? chosen : "";
    if (before !== null && !runs.some((run) => run.place === before)) before = null;
    list();
    if (!runs.length) $("said").textContent = "There is no run in this folder. `redinstruct eval --run runs/NAME` makes one.";
  });
}

$("text").addEventListener("input", list);
$("kind").addEventListener("change", list);
$("again").addEventListener("click", read);
read();
