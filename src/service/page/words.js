// How zones, moments and minutes are written, and elements made.

const CITY = "America/New_York";
const SVG = "http://www.w3.org/2000/svg";

/** What a zone is called; of some only the number is known. */
export function nameOf(zone) {
  return zone.name ?? `Zone ${zone.zone}`;
}

/** Where a zone is: its borough, where that is known, and its number. */
export function placeOf(zone) {
  return [zone.borough, zone.zone].filter((word) => word !== null).join(" · ");
}

/** A minute of the day as people say it, like "8:30 am"; those after midnight belong to the next. */
export function clock(minute) {
  const inDay = ((Math.round(minute) % 1440) + 1440) % 1440;
  const hour = Math.floor(inDay / 60);
  const rest = String(inDay % 60).padStart(2, "0");
  return `${hour % 12 || 12}:${rest} ${hour < 12 ? "am" : "pm"}`;
}

/** A minute of the day as a time field holds it, like "08:30". */
export function timeOf(minute) {
  const [hour, rest] = [Math.floor(minute / 60), minute % 60];
  return `${String(hour).padStart(2, "0")}:${String(rest).padStart(2, "0")}`;
}

/** The minute of the day of a time like "08:30". */
export function minuteOf(time) {
  const [hour, minute] = time.split(":").map(Number);
  return 60 * hour + minute;
}

/** Today's date and the time now, as fields hold them, on New York's clocks. */
export function now() {
  const options = { dateStyle: "short", timeStyle: "short", timeZone: CITY };
  const [date, time] = new Intl.DateTimeFormat("sv-SE", options).format(new Date()).split(" ");
  return { date, time };
}

/** An element of HTML with attributes and children, which may be text. */
export function html(name, attributes = {}, ...children) {
  return filled(document.createElement(name), attributes, children);
}

/** An element of SVG with attributes and children. */
export function svg(name, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, name), attributes, children);
}

function filled(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}
