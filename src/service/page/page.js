// The page: a trip in the address's hash, the fields and the map that choose it, and the answer.

import { TIMES, curve } from "./curve.js";
import { zoneMap } from "./map.js";
import { picker } from "./picker.js";
import { clock, html, minuteOf, now, timeOf } from "./words.js";

const PATIENCE = 20_000; // milliseconds until an answer is given up
const PAUSE = 150; // milliseconds without a change before the service is asked
const FIELDS = {
  pickup: "the date and time",
  pickup_zone: "the pickup",
  dropoff_zone: "the drop-off",
  trip_distance: "the miles",
};

const find = (id) => document.getElementById(id);
const state = { from: null, to: null, date: "", time: "", miles: "" };
let zones = new Map();
let pickers;
let map;
let next = "from"; // the end that a click on the map chooses

/** A sentence for the person who meets it. */
class Trouble extends Error {}

// The service

async function fetched(path, options = {}) {
  let response;
  try {
    response = await fetch(path, { ...options, signal: options.signal ?? AbortSignal.timeout(PATIENCE) });
    if (response.ok) return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Trouble("The service does not answer. See that it is running, then try again.");
  }
  throw new Trouble(await refusal(response));
}

async function refusal(response) {
  const { detail } = await response.json().catch(() => ({}));
  if (response.status === 422 && Array.isArray(detail)) {
    const said = detail.map(({ loc, msg }) => {
      const key = loc.findLast((part) => part in FIELDS);
      return key ? `${FIELDS[key]} (${msg})` : msg;
    });
    return `The service refuses this trip: look at ${[...new Set(said)].join(", ")}.`;
  }
  const reason = typeof detail === "string" ? ` It says: ${detail}` : "";
  return `The service could not answer (${response.status}). Try again in a moment.${reason}`;
}

/** The answers for some trips, in as many requests as the service wants for them. */
async function predict(trips, signal) {
  const headers = { "Content-Type": "application/json" };
  const answers = [];
  for (let at = 0; at < trips.length; at += most) {
    const body = JSON.stringify(trips.slice(at, at + most));
    answers.push(...(await fetched("predict", { method: "POST", headers, body, signal })));
  }
  return answers;
}

// Asking: the trip itself, and the whole day unless the curve shows it already

let asking = new AbortController();
let waiting = 0;
let shown = { key: null, version: null }; // of the curve
let model = {}; // what /ready says of the model that answered last
let most = Infinity; // trips that the service takes in a request

const day = curve(find("day"), (minute, answer) => {
  state.time = timeOf(minute);
  changed();
  day.mark(state.time, answer);
  say(state.time, answer);
});

function trip(time) {
  const asked = {
    pickup: `${state.date}T${time}:00`,
    pickup_zone: state.from.zone,
    dropoff_zone: state.to.zone,
  };
  return state.miles === "" ? asked : { ...asked, trip_distance: Number(state.miles) };
}

async function ask() {
  asking.abort();
  asking = new AbortController();
  const missing = wanted();
  if (missing) return prompt(missing);
  const key = JSON.stringify([state.from.zone, state.to.zone, state.date, state.miles]);
  const times = key === shown.key ? [] : TIMES.map(timeOf);
  const { time } = state;
  const mine = asking;
  const late = setTimeout(() => mine.abort(new DOMException("late", "TimeoutError")), PATIENCE);
  find("answer").setAttribute("aria-busy", "true");
  try {
    const [answer, ...hours] = await predict([trip(time), ...times.map(trip)], mine.signal);
    if (mine !== asking) return;
    if (hours.length) {
      day.show(hours);
      shown = { key, version: answer.model_version };
    } else if (answer.model_version !== shown.version) {
      shown.key = null; // another model was promoted: its day is another
      return ask();
    }
    if (answer.model_version !== model.model_version) await meet(answer.model_version);
    if (mine !== asking) return;
    day.mark(time, answer);
    say(time, answer);
  } catch (error) {
    if (error.name !== "AbortError" && mine === asking) complain(error, ask);
  } finally {
    clearTimeout(late);
    if (mine === asking) find("answer").removeAttribute("aria-busy");
  }
}

/** Learn about a model, or about that which would answer now; the answer stands without it. */
async function meet(version) {
  const found = await fetched("ready").catch(() => ({}));
  // Between two requests another may have been promoted: then the next answer says so.
  model = version === undefined || found.model_version === version ? found : {};
  most = found.max_trips ?? most;
  find("miles").parentElement.hidden = model.uses_distance === false;
}

/** What a person has yet to choose; "" for nothing. */
function wanted() {
  if (!state.from && !state.to) {
    return `Choose a pickup and a drop-off${map ? ", by name or on the map" : ""}.`;
  }
  if (!state.from) return "Now choose the pickup.";
  if (!state.to) return "Now choose the drop-off.";
  if (!find("date").validity.valid) return "Choose a date from 2000 to 2099.";
  if (!find("time").validity.valid) return "Choose a time.";
  return find("miles").validity.valid ? "" : "Miles are a number from 0 on, or nothing.";
}

// Saying

function prompt(sentence) {
  reset();
  find("answer").replaceChildren(html("p", { class: "prompt" }, sentence));
}

function reset() {
  find("trouble").hidden = true;
  find("answer").removeAttribute("aria-busy");
  find("answer").replaceChildren();
  find("model").replaceChildren();
  day.clear();
  shown = { key: null, version: null };
}

function say(time, { minutes, lower, upper, model_version: version }) {
  const start = minuteOf(time);
  find("trouble").hidden = true;
  find("answer").replaceChildren(
    html("p", { class: "minutes" }, html("strong", {}, `${Math.round(minutes)}`), " min"),
    html("p", { class: "likely" }, `most likely between ${Math.round(lower)} and ${Math.round(upper)} min`),
    html("p", { class: "arrival" }, `Picked up at ${clock(start)}, there at about ${clock(start + minutes)}`),
  );
  if (model.uses_distance && state.miles === "") {
    const doubt = "This model knows trips by their miles: without them it is less sure.";
    find("answer").append(html("p", { class: "doubt" }, doubt));
  }
  find("held").textContent = model.level ? `The band holds ${Math.round(100 * model.level)} % of trips.` : "";
  find("model").textContent = [`Model ${version}`, ...origin()].join(", ");
}

/** What the model learned from, where that is known. */
function origin() {
  const { taxi, train_months: months = [] } = model;
  if (!taxi || !months.length) return [];
  const [first, last] = [months[0], months.at(-1)];
  return [`learned from ${taxi} taxi trips of ${first === last ? first : `${first} to ${last}`}`];
}

function complain(error, again) {
  reset();
  const known = error instanceof Trouble;
  find("trouble").querySelector("p").textContent = known
    ? error.message
    : "This page met an error of its own. Load it again.";
  find("trouble").hidden = false;
  find("retry").onclick = () => {
    find("trouble").hidden = true;
    again();
  };
  if (!known) console.error(error);
}

// The trip: fields, map and hash show the same

function changed({ reveal = false } = {}) {
  show(reveal);
  history.replaceState(null, "", `#${hash()}`);
  asking.abort(); // what it would answer is no longer asked
  clearTimeout(waiting);
  waiting = setTimeout(ask, wanted() ? 0 : PAUSE);
}

function show(reveal) {
  for (const end of ["from", "to"]) {
    pickers[end].show(state[end]);
    find(end).parentElement.classList.toggle("next", Boolean(map) && end === next);
  }
  for (const name of ["date", "time", "miles"]) {
    if (find(name).value !== state[name]) find(name).value = state[name];
  }
  map?.show(state.from, state.to, reveal);
}

function hash() {
  const words = new URLSearchParams();
  for (const end of ["from", "to"]) if (state[end]) words.set(end, state[end].zone);
  if (state.date && state.time) words.set("at", `${state.date}T${state.time}`);
  if (state.miles !== "") words.set("miles", state.miles);
  return words.toString().replaceAll("%3A", ":");
}

function restore() {
  const words = new URLSearchParams(location.hash.slice(1));
  const [, date, time] = /^(\d{4}-\d\d-\d\d)T(\d\d:\d\d)$/.exec(words.get("at")) ?? [];
  state.from = zones.get(Number(words.get("from"))) ?? null;
  state.to = zones.get(Number(words.get("to"))) ?? null;
  Object.assign(state, date ? { date, time } : now());
  const miles = words.get("miles") ?? "";
  state.miles = /^\d+(\.\d+)?$/.test(miles) ? miles : "";
  next = state.from && !state.to ? "to" : "from";
  changed({ reveal: true });
}

function choose(end, zone, reveal) {
  state[end] = zone;
  const other = end === "from" ? "to" : "from";
  next = zone ? other : end;
  changed({ reveal });
}

// The parts

async function start() {
  let plane;
  try {
    plane = await fetched("zones");
  } catch (error) {
    return complain(error, start);
  }
  zones = new Map(plane.zones.map((zone) => [zone.zone, zone]));
  pickers = Object.fromEntries(
    ["from", "to"].map((end) => [
      end,
      picker(find(end), find(`${end}-list`), plane.zones, (zone) => choose(end, zone, true)),
    ]),
  );
  if (plane.zones.some((zone) => zone.path)) openMap(plane);
  await meet();
  restore();
  listen();
}

function listen() {
  addEventListener("hashchange", restore);
  for (const name of ["date", "time", "miles"]) {
    find(name).addEventListener("input", () => {
      state[name] = find(name).value;
      changed();
    });
  }
  find("swap").onclick = () => {
    Object.assign(state, { from: state.to, to: state.from });
    changed();
  };
  find("now").onclick = () => {
    Object.assign(state, now());
    changed();
  };
}

function openMap(plane) {
  find("chart").hidden = false;
  find("map-kind").hidden = plane.kind !== "schematic";
  map = zoneMap(
    find("map"),
    plane,
    (zone) => choose(next, zone, false),
    (text) => (find("map-says").textContent = text),
  );
  find("nearer").onclick = () => map.zoom(1.6);
  find("farther").onclick = () => map.zoom(1 / 1.6);
  find("whole").onclick = () => map.whole();
}

find("trip").addEventListener("submit", (event) => event.preventDefault());
start();
