// The map: zones to click on, zoom and pan by pointer, pinch and keys, and the trip drawn on it.

import { nameOf, placeOf, svg } from "./words.js";

const NEAREST = 24; // how many times larger than the whole a map may be shown
const CLICK = 6; // pixels that a pointer may move in a click
const GLIDE = 350; // milliseconds
const COLOURS = 8; // of boroughs, in page.css

/**
 * Draw the zones into an SVG element.
 *
 * @param {SVGSVGElement} element
 * @param {object} plane - as /zones gives it
 * @param {(zone: object) => void} onChoose - called when a person has chosen a zone
 * @param {(text: string) => void} onPoint - says which zone is pointed at; "" for none
 * @returns {{show: function, zoom: function, whole: function}}
 */
export function zoneMap(element, plane, onChoose, onPoint) {
  const zones = plane.zones.filter((zone) => zone.path);
  const shaped = (zone) => svg("path", { d: zone.path, "data-zone": zone.zone });
  const shapes = new Map(zones.map((zone) => [zone.zone, shaped(zone)]));
  const byId = new Map(zones.map((zone) => [zone.zone, zone]));
  const boroughs = [...new Set(zones.map((zone) => zone.borough ?? ""))].sort();
  for (const zone of zones) {
    const colour = boroughs.indexOf(zone.borough ?? "") % COLOURS;
    shapes.get(zone.zone).setAttribute("class", `zone borough-${colour}`);
  }
  const land = svg("g", {}, ...shapes.values());
  const cursor = svg("path", { class: "cursor" });
  const names = svg("g", { class: "boroughs", "aria-hidden": "true" });
  names.append(...boroughs.filter(Boolean).map(boroughName));
  const route = svg("path", { class: "route" });
  const pins = { from: pin("from", "A"), to: pin("to", "B") };
  element.replaceChildren(land, cursor, names, route, pins.to, pins.from);

  function boroughName(borough) {
    const inside = zones.filter((zone) => zone.borough === borough);
    const mean = (key) => inside.reduce((sum, zone) => sum + zone[key], 0) / inside.length;
    const middle = nearestTo({ x: mean("x"), y: mean("y") }, inside);
    const text = svg("text", { "text-anchor": "middle" }, borough);
    return svg("g", { "data-x": middle.x, "data-y": middle.y }, text);
  }

  function pin(end, letter) {
    const drop = "M0 0C-4 -9 -13 -13 -13 -23A13 13 0 0 1 13 -23C13 -13 4 -9 0 0Z";
    const text = svg("text", { y: -18, "text-anchor": "middle" }, letter);
    return svg("g", { class: `pin ${end}`, visibility: "hidden" }, svg("path", { d: drop }), text);
  }

  // The view: its middle, and units of the plane a pixel

  const wholeUnit = () =>
    1.06 * Math.max(plane.width / element.clientWidth, plane.height / element.clientHeight);

  let view = { x: plane.width / 2, y: plane.height / 2, unit: wholeUnit() };
  let gliding = 0;

  function look({ x, y, unit }) {
    const [width, height] = [element.clientWidth, element.clientHeight];
    if (!width || !height) return;
    const most = wholeUnit();
    const held = (value, least, greatest) => Math.min(Math.max(value, least), greatest);
    unit = held(unit, most / NEAREST, most);
    // At its smallest the map is in the middle; nearer, its edge may come to the view's middle.
    const free = 1 - unit / most;
    const [halfWidth, halfHeight] = [(free * plane.width) / 2, (free * plane.height) / 2];
    x = held(x, plane.width / 2 - halfWidth, plane.width / 2 + halfWidth);
    y = held(y, plane.height / 2 - halfHeight, plane.height / 2 + halfHeight);
    view = { x, y, unit };
    const [wide, high] = [width * unit, height * unit];
    element.setAttribute("viewBox", `${x - wide / 2} ${y - high / 2} ${wide} ${high}`);
    for (const label of element.querySelectorAll("[data-x]")) {
      label.setAttribute("transform", `translate(${label.dataset.x} ${label.dataset.y}) scale(${unit})`);
    }
    element.classList.toggle("near", free > 0.6);
    // A finger moves the map once it is larger than its frame; until then it scrolls the page.
    element.style.touchAction = free > 0.01 ? "none" : "pan-y";
  }

  function glide(target) {
    cancelAnimationFrame(gliding);
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) return look(target);
    const [start, begin] = [{ ...view }, performance.now()];
    const step = (moment) => {
      const part = Math.min(Math.max((moment - begin) / GLIDE, 0), 1);
      const eased = 1 - (1 - part) ** 3;
      look({
        x: start.x + (target.x - start.x) * eased,
        y: start.y + (target.y - start.y) * eased,
        unit: start.unit * (target.unit / start.unit) ** eased,
      });
      if (part < 1) gliding = requestAnimationFrame(step);
    };
    gliding = requestAnimationFrame(step);
  }

  /** Where a pixel of the window lies on the plane. */
  function onPlane(clientX, clientY) {
    const frame = element.getBoundingClientRect();
    return {
      x: view.x + (clientX - frame.left - frame.width / 2) * view.unit,
      y: view.y + (clientY - frame.top - frame.height / 2) * view.unit,
    };
  }

  /** Whether a place is within this share of the frame from its middle; 0.5 is its edge. */
  function isSeen({ x, y }, share) {
    const most = share * view.unit;
    return (
      Math.abs(x - view.x) < most * element.clientWidth &&
      Math.abs(y - view.y) < most * element.clientHeight
    );
  }

  /** Zoom so that what is at a pixel stays there. */
  function zoomAt(factor, clientX, clientY) {
    const fixed = onPlane(clientX, clientY);
    const unit = Math.min(view.unit / factor, wholeUnit());
    const ratio = unit / view.unit;
    look({ x: fixed.x + (view.x - fixed.x) * ratio, y: fixed.y + (view.y - fixed.y) * ratio, unit });
  }

  const zoom = (factor) => glide({ ...view, unit: view.unit / factor });
  const whole = () => glide({ x: plane.width / 2, y: plane.height / 2, unit: wholeUnit() });

  // The trip

  /** Draw the trip; `reveal` also brings it into view where it is not well seen. */
  function show(from, to, reveal) {
    for (const shape of land.querySelectorAll(".from, .to")) shape.classList.remove("from", "to");
    const ends = { from: byId.get(from?.zone), to: byId.get(to?.zone) };
    for (const [end, zone] of Object.entries(ends)) {
      pins[end].setAttribute("visibility", zone ? "visible" : "hidden");
      if (!zone) continue;
      shapes.get(zone.zone).classList.add(end);
      pins[end].dataset.x = zone.x;
      pins[end].dataset.y = zone.y;
    }
    route.setAttribute("d", ends.from && ends.to ? arc(ends.from, ends.to) : "");
    const both = Object.values(ends).filter(Boolean);
    if (reveal && both.length) bringIntoView(both);
    else look(view);
  }

  function bringIntoView(places) {
    const ends = (key) => {
      const values = places.map((place) => place[key]);
      return [Math.min(...values), Math.max(...values)];
    };
    const [[west, east], [north, south]] = [ends("x"), ends("y")];
    const [x, y] = [(west + east) / 2, (north + south) / 2];
    const [width, height] = [element.clientWidth, element.clientHeight];
    const needed = Math.max((east - west) / width, (south - north) / height);
    const large = places.length < 2 || needed > 0.25 * view.unit;
    if (large && places.every((place) => isSeen(place, 0.42))) return look(view);
    const unit = Math.max(2.2 * needed, wholeUnit() / 5);
    glide({ x, y, unit: places.length < 2 ? Math.min(view.unit, unit) : unit });
  }

  // Pointers: one clicks or pans, two pinch

  const pointers = new Map();
  let moved = 0;

  element.addEventListener("pointerdown", (event) => {
    cancelAnimationFrame(gliding);
    if (!pointers.size) moved = 0;
    pointers.set(event.pointerId, event);
  });
  element.addEventListener("pointermove", (event) => {
    const before = pointers.get(event.pointerId);
    if (!before) return point(event.target.closest("[data-zone]"));
    moved += Math.hypot(event.clientX - before.clientX, event.clientY - before.clientY);
    if (pointers.size === 2) pinch(event, before);
    else if (moved > CLICK) {
      element.setPointerCapture(event.pointerId);
      look({
        x: view.x - (event.clientX - before.clientX) * view.unit,
        y: view.y - (event.clientY - before.clientY) * view.unit,
        unit: view.unit,
      });
    }
    pointers.set(event.pointerId, event);
  });
  for (const name of ["pointerup", "pointercancel"]) {
    element.addEventListener(name, (event) => pointers.delete(event.pointerId));
  }
  element.addEventListener("pointerleave", (event) => {
    pointers.delete(event.pointerId);
    point(null);
  });
  element.addEventListener("click", (event) => {
    const shape = event.target.closest("[data-zone]");
    if (shape && moved <= CLICK) onChoose(byId.get(Number(shape.dataset.zone)));
  });
  element.addEventListener(
    "wheel",
    (event) => {
      // Where the page itself scrolls, the wheel is the page's.
      const scrolls = document.documentElement.scrollHeight > innerHeight + 1;
      if (scrolls && !event.ctrlKey) return;
      event.preventDefault();
      zoomAt(Math.exp(-event.deltaY / 400), event.clientX, event.clientY);
    },
    { passive: false },
  );

  function pinch(event, before) {
    moved = Infinity;
    const [, other] = [...pointers.values()].sort((a) => (a.pointerId === event.pointerId ? -1 : 1));
    const apart = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) || 1;
    const [x, y] = [(event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2];
    zoomAt(apart(event) / apart(before), x, y);
  }

  function point(shape) {
    const zone = shape ? byId.get(Number(shape.dataset.zone)) : null;
    onPoint(zone ? `${nameOf(zone)} · ${placeOf(zone)}` : "");
  }

  // Keys: from zone to zone, as the arrows point

  let at = null; // the zone that the keys are at

  function stand(zone) {
    at = zone;
    cursor.setAttribute("d", zone ? zone.path : "");
    point(zone && shapes.get(zone.zone));
    if (!zone) return;
    if (!isSeen(zone, 0.45)) glide({ x: zone.x, y: zone.y, unit: view.unit });
  }

  function neighbour(zone, [right, down]) {
    const ahead = zones.flatMap((other) => {
      const [x, y] = [other.x - zone.x, other.y - zone.y];
      const [along, aside] = [x * right + y * down, Math.abs(x * down - y * right)];
      return along > 0 && aside <= 1.5 * along ? [{ other, far: Math.hypot(along, 2 * aside) }] : [];
    });
    ahead.sort((a, b) => a.far - b.far);
    return ahead.length ? ahead[0].other : zone;
  }

  const arrows = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
  element.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const arrow = arrows[event.key];
    if (arrow && event.shiftKey) {
      const step = 80 * view.unit;
      look({ x: view.x + arrow[0] * step, y: view.y + arrow[1] * step, unit: view.unit });
    } else if (arrow) stand(at ? neighbour(at, arrow) : nearestTo(view, zones));
    else if ((event.key === "Enter" || event.key === " ") && at) onChoose(at);
    else if (event.key === "+" || event.key === "=") zoom(1.6);
    else if (event.key === "-") zoom(1 / 1.6);
    else if (event.key === "0") whole();
    else return;
    event.preventDefault();
  });
  element.addEventListener("blur", () => stand(null));

  let unitBefore = wholeUnit(); // what is seen keeps its share when the frame's size changes
  new ResizeObserver(() => {
    look({ ...view, unit: (view.unit / unitBefore) * wholeUnit() });
    unitBefore = wholeUnit();
  }).observe(element);
  return { show, zoom, whole };
}

function nearestTo({ x, y }, zones) {
  const far = (zone) => Math.hypot(zone.x - x, zone.y - y);
  return zones.reduce((best, zone) => (far(zone) < far(best) ? zone : best));
}

/** A line that bends a little, as a path. */
function arc(from, to) {
  const [x, y] = [(to.x - from.x) / 2, (to.y - from.y) / 2];
  return `M${from.x} ${from.y}Q${from.x + x + 0.35 * y} ${from.y + y - 0.35 * x} ${to.x} ${to.y}`;
}
