// Keeps a page in step with the cluster, and lets the heat map be walked by pointer and keys.
// Everything is there without it; it only fetches the page it is on, the events and the API.
"use strict";

const root = document.body.dataset.root;

/* ---- following ---- */

const button = document.getElementById("follow");
const said = document.getElementById("follow-text");
let source = null;
let fetching = false;
let again = false;
let shown = null;

function show(state, text) {
  button.className = `follow ${state}`;
  said.textContent = text;
}

async function refresh() {
  if (fetching) {
    again = true;
    return;
  }
  fetching = true;
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok) {
      exchange(new DOMParser().parseFromString(await answer.text(), "text/html"));
    } else if (answer.status !== 404 && answer.status !== 410) {
      show("off", "Not live");
    }
  } catch {
    show("off", "Not live");
  } finally {
    fetching = false;
    if (again) {
      again = false;
      refresh();
    }
  }
}

const parts = (page) => [...page.querySelectorAll("[data-live]")].map((one) => one.id).join(" ");

function exchange(page) {
  if (parts(page) !== parts(document)) {
    // Something came or went, such as the set of a pod that waited.
    document.getElementById("main").replaceChildren(...page.getElementById("main").childNodes);
    walkHeatMap();
    tryWeights();
    return;
  }
  for (const fresh of page.querySelectorAll("[data-live]")) {
    const old = document.getElementById(fresh.id);
    if (old === null || old.innerHTML === fresh.innerHTML) continue;
    const open = [...old.querySelectorAll("details[open]")].map((one) => one.id);
    const at = path(old, document.activeElement);
    const scroll = old.scrollLeft;
    old.replaceChildren(...fresh.childNodes);
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    if (at !== null) follow(old, at)?.focus({ preventScroll: true });
    old.scrollLeft = scroll;
    old.dispatchEvent(new Event("exchanged"));
  }
}

/** Where an element is below another, so that its successor gets the focus. */
function path(top, element) {
  if (!top.contains(element) || top === element) return null;
  const found = [];
  for (let one = element; one !== top; one = one.parentElement) {
    found.unshift([...one.parentElement.children].indexOf(one));
  }
  return found;
}

function follow(top, places) {
  return places.reduce((one, place) => one?.children[place], top);
}

function listen() {
  source = new EventSource(`${root}events`);
  source.addEventListener("change", (event) => {
    show("on", "Live");
    if (shown !== null && shown !== event.data) refresh();
    shown = event.data;
  });
  source.addEventListener("error", () => show("off", "Not live"));
}

function pause() {
  source?.close();
  source = null;
}

button.addEventListener("click", () => {
  const live = button.getAttribute("aria-pressed") === "true";
  button.setAttribute("aria-pressed", String(!live));
  if (live) {
    pause();
    show("", "Paused");
  } else {
    show("", "Live");
    refresh();
    listen();
  }
});

document.addEventListener("visibilitychange", () => {
  if (button.getAttribute("aria-pressed") !== "true") return;
  if (document.hidden) {
    pause();
  } else if (source === null) {
    refresh();
    listen();
  }
});

/* ---- the heat map ---- */

function walkHeatMap() {
  const heat = document.getElementById("heat");
  if (heat === null) return;
  const line = document.getElementById("heat-said");
  let data = null;
  let place = -1;

  const read = () => {
    data = JSON.parse(document.getElementById("heat-data").textContent);
    if (place >= 0) mark(Math.min(place, data.names.length - 1), false);
  };
  const mark = (next, speak) => {
    place = next;
    const cell = heat.querySelector("svg").viewBox.baseVal.width / data.columns;
    const cursor = heat.querySelector(".cursor");
    cursor.setAttribute("x", String((place % data.columns) * cell));
    cursor.setAttribute("y", String(Math.floor(place / data.columns) * cell));
    const text = `${data.names[place]}: ${data.free[place]} of ${data.gpus[place]} GPUs free`;
    if (speak || line.textContent !== text) line.textContent = text;
  };
  const under = (event) => {
    const frame = heat.querySelector("svg").getBoundingClientRect();
    const cell = frame.width / data.columns;
    const column = Math.floor((event.clientX - frame.left) / cell);
    const found = Math.floor((event.clientY - frame.top) / cell) * data.columns + column;
    return column >= 0 && column < data.columns && found >= 0 && found < data.names.length ? found : -1;
  };
  const open = () => {
    if (place >= 0) location.href = `${root}nodes/${encodeURIComponent(data.names[place])}`;
  };

  heat.addEventListener("exchanged", read);
  heat.addEventListener("pointermove", (event) => {
    const found = under(event);
    if (found >= 0 && found !== place) mark(found, true);
  });
  heat.addEventListener("click", (event) => {
    const found = under(event);
    if (found >= 0) {
      mark(found, true);
      open();
    }
  });
  heat.addEventListener("keydown", (event) => {
    const last = data.names.length - 1;
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -data.columns, ArrowDown: data.columns };
    if (event.key === "Enter") {
      open();
    } else if (event.key === "Home" || event.key === "End") {
      mark(event.key === "Home" ? 0 : last, true);
    } else if (event.key in steps) {
      const next = place < 0 ? 0 : place + steps[event.key];
      if (next >= 0 && next <= last) mark(next, true);
    } else {
      return;
    }
    event.preventDefault();
  });
  read();
}

/* ---- other weights ---- */

function tryWeights() {
  const whatIf = document.getElementById("what-if");
  if (whatIf === null) return;
  const form = document.getElementById("weights");
  const told = document.getElementById("what-if-said");
  const table = document.getElementById("what-if-table");
  const before = [...document.querySelectorAll("#scores .bar-node a")].map((one) => one.textContent);
  let waiting = null;
  let asked = 0;

  const weights = () =>
    Object.fromEntries([...form.elements].filter((one) => one.name !== "").map((one) => [one.name, Number(one.value)]));
  const write = () => {
    for (const input of form.querySelectorAll("input")) {
      input.previousElementSibling.textContent = input.value;
    }
  };
  const decide = async () => {
    const mine = ++asked;
    const chosen = weights();
    if (Object.values(chosen).every((one) => one === 0)) {
      told.textContent = "At least one weight must be above 0.";
      return;
    }
    told.textContent = "Deciding…";
    try {
      const answer = await fetch(`${root}v1/dry-run?top=10`, {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ pods: [{ pod: whatIf.dataset.pod }], changes: { weights: chosen } }),
      });
      const found = await answer.json();
      if (mine !== asked) return;
      if (answer.ok) tell(found.pods[0]);
      else told.textContent = `It could not be decided: ${found.error}`;
    } catch (error) {
      if (mine === asked) told.textContent = `It could not be decided: ${error.message}`;
    }
  };
  const tell = (pod) => {
    if (pod.node === null) {
      told.textContent = `No node would do now: ${pod.reason}`;
    } else {
      const gpus = pod.set.gpus.map((gpu) => gpu.position).join(", ");
      const fast = pod.set.busBandwidthGbs > 0 ? ` at ${pod.set.busBandwidthGbs.toFixed(0)} GB/s` : "";
      told.textContent = `It would go to ${pod.node}${gpus === "" ? "" : `, GPU ${gpus}`}${fast}.`;
    }
    table.hidden = pod.scores.length === 0;
    table.tBodies[0].replaceChildren(
      ...pod.scores.map((score, place) => {
        const row = document.createElement("tr");
        const was = before.indexOf(score.Host);
        const moved = was < 0 ? "not among the best" : was === place ? "the same" : `${was + 1}`;
        const kind = was >= 0 && was > place ? "moved-up" : was >= 0 && was < place ? "moved-down" : "";
        const arrow = { "moved-up": " ▲", "moved-down": " ▼" }[kind] ?? "";
        for (const [text, style] of [[place + 1, "num"], [score.Host, ""], [score.Score.toFixed(1), "num"], [moved + arrow, kind]]) {
          const cell = document.createElement("td");
          cell.textContent = text;
          cell.className = style;
          row.append(cell);
        }
        return row;
      }),
    );
  };

  form.addEventListener("input", () => {
    write();
    clearTimeout(waiting);
    waiting = setTimeout(decide, 300);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(waiting);
    decide();
  });
  form.addEventListener("reset", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => {
      write();
      decide();
    }, 0);
  });
  whatIf.hidden = false;
}

/* ---- begin ---- */

walkHeatMap();
tryWeights();
if (document.querySelector("[data-live]") !== null) {
  button.hidden = false;
  listen();
}
