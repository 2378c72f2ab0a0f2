// Minutes by the time of pickup, with the interval as a band, as a drawing, a sentence and a table.

import { clock, html, minuteOf, svg } from "./words.js";

const STEP = 15; // minutes between the times that are asked for
const HEIGHT = 190;
const NARROW = 320; // pixels in which five hours cannot be named
const MARGIN = { top: 12, right: 10, bottom: 24, left: 34 }; // as page.css has it for the slider

/** The minutes of the day that a curve is drawn through. */
export const TIMES = Array.from({ length: 1440 / STEP }, (_, i) => i * STEP);

/**
 * Draw a day into the elements of its section.
 *
 * @param {HTMLElement} section
 * @param {(minute: number, answer: object) => void} onTime - called with one of TIMES and what was
 *   answered of it, when a person moves the slider over the curve
 * @returns {{show: function, mark: function, clear: function}}
 */
export function curve(section, onTime) {
  const drawing = section.querySelector("#curve");
  const slider = section.querySelector("#hour");
  let day = []; // answers of /predict, one for each of TIMES
  let marked = null; // {time, answer}: what was asked

  const ticks = (highest) => {
    const step = [5, 10, 15, 20, 30, 60, 120].find((each) => highest / each <= 4) ?? 240;
    return Array.from({ length: Math.ceil(highest / step) + 1 }, (_, i) => i * step);
  };

  function draw() {
    const width = drawing.clientWidth;
    if (!day.length || !width) return;
    const marks = ticks(Math.max(...day.map((answer) => answer.upper)));
    const across = (width - MARGIN.left - MARGIN.right) / 1440;
    const up = (HEIGHT - MARGIN.top - MARGIN.bottom) / marks.at(-1);
    const x = (minute) => MARGIN.left + across * minute;
    const y = (minutes) => HEIGHT - MARGIN.bottom - up * minutes;
    // The last quarter of an hour is drawn level, so that the day is whole.
    const line = (key) => {
      const points = day.map((answer, i) => [x(TIMES[i]), y(answer[key])]);
      points.push([x(1440), y(day.at(-1)[key])]);
      return points.map((point) => point.map((value) => value.toFixed(1)).join(" "));
    };
    const band = [...line("lower"), ...line("upper").reverse()];
    drawing.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
    drawing.replaceChildren(
      ...marks.flatMap((minutes) => [
        svg("path", { class: "grid", d: `M${MARGIN.left} ${y(minutes)}H${width - MARGIN.right}` }),
        tick(MARGIN.left - 6, y(minutes) + 4, "end", `${minutes}`),
      ]),
      ...(width < NARROW ? [0, 12, 24] : [0, 6, 12, 18, 24]).map((hour) => {
        const anchor = { 0: "start", 24: "end" }[hour] ?? "middle";
        return tick(x(60 * hour), HEIGHT - 6, anchor, hourName(hour));
      }),
      svg("path", { class: "band", d: `M${band.join("L")}Z` }),
      svg("path", { class: "line", d: `M${line("minutes").join("L")}` }),
    );
    if (marked) {
      const [left, { lower, upper, minutes }] = [x(minuteOf(marked.time)), marked.answer];
      drawing.append(
        svg("path", { class: "moment", d: `M${left} ${HEIGHT - MARGIN.bottom}V${MARGIN.top}` }),
        svg("path", { class: "reach", d: `M${left} ${y(lower)}V${y(upper)}` }),
        svg("circle", { class: "dot", cx: left, cy: y(minutes), r: 5.5 }),
      );
    }
  }

  function show(answers) {
    day = answers;
    const order = TIMES.map((_, i) => i).sort((a, b) => day[a].minutes - day[b].minutes);
    const said = (i) => `${Math.round(day[i].minutes)} min at ${clock(TIMES[i])}`;
    section.querySelector("#day-summary").textContent =
      `Quickest: ${said(order[0])}. Slowest: ${said(order.at(-1))}.`;
    const hours = TIMES.flatMap((minute, i) => (minute % 60 ? [] : [i]));
    section.querySelector("#hours").replaceChildren(
      ...hours.map((i) =>
        html(
          "tr",
          {},
          html("th", { scope: "row" }, clock(TIMES[i])),
          html("td", {}, `${Math.round(day[i].minutes)}`),
          html("td", {}, `${Math.round(day[i].lower)} and ${Math.round(day[i].upper)}`),
        ),
      ),
    );
    section.hidden = false;
    draw();
  }

  function mark(time, answer) {
    marked = { time, answer };
    slider.value = minuteOf(time);
    const said = `${clock(minuteOf(time))}: ${Math.round(answer.minutes)} minutes`;
    slider.setAttribute("aria-valuetext", said);
    draw();
  }

  slider.addEventListener("input", () => onTime(Number(slider.value), day[slider.value / STEP]));
  new ResizeObserver(draw).observe(drawing);
  return { show, mark, clear: () => (section.hidden = true) };
}

function tick(x, y, anchor, text) {
  return svg("text", { class: "tick", x, y, "text-anchor": anchor }, text);
}

function hourName(hour) {
  if (hour % 12) return `${hour % 12} ${hour < 12 ? "am" : "pm"}`;
  return hour === 12 ? "noon" : "midnight";
}
