// A text field that finds a zone by name, borough or number: ARIA's combobox with a list.

import { html, nameOf, placeOf } from "./words.js";

const plain = (text) => text.normalize("NFD").replace(/\p{M}/gu, "").toLowerCase();

/**
 * Make a combobox of a text field and the list below it.
 *
 * @param {HTMLInputElement} input
 * @param {HTMLUListElement} list
 * @param {Array<object>} zones - as /zones gives them
 * @param {(zone: object | null) => void} onChoose - called when a person has chosen, or emptied it
 * @returns {{show: (zone: object | null) => void}} - puts a zone into the field
 */
export function picker(input, list, zones, onChoose) {
  const known = zones.map((zone) => ({
    zone,
    name: plain(nameOf(zone)),
    words: plain(`${nameOf(zone)} ${placeOf(zone)}`),
  }));
  known.sort((a, b) => a.name.localeCompare(b.name, "en", { numeric: true }));
  let chosen = null;
  let found = [];
  let active = -1;
  let typed = false; // whether the list is of what was typed

  function matching(text) {
    const typed = plain(text).trim();
    const words = typed.split(/\s+/);
    const rank = (one) =>
      String(one.zone.zone) === typed ? 0 : one.name.startsWith(typed) ? 1 : 2;
    return known
      .filter((one) => words.every((word) => one.words.includes(word)))
      .sort((a, b) => rank(a) - rank(b))
      .map((one) => one.zone);
  }

  function open(text) {
    typed = text.trim() !== "";
    found = matching(text);
    const options = found.map((zone, i) =>
      html(
        "li",
        { role: "option", id: `${list.id}-${i}`, "aria-selected": zone === chosen },
        html("span", {}, nameOf(zone)),
        html("small", {}, placeOf(zone)),
      ),
    );
    if (!options.length) options.push(html("li", { class: "none" }, "No such zone"));
    list.replaceChildren(...options);
    list.hidden = false;
    input.setAttribute("aria-expanded", "true");
    activate(typed ? 0 : found.indexOf(chosen));
  }

  function close() {
    typed = false;
    list.hidden = true;
    input.setAttribute("aria-expanded", "false");
    input.removeAttribute("aria-activedescendant");
  }

  function activate(number) {
    list.children[active]?.classList.remove("active");
    active = found.length ? number : -1;
    const option = list.children[active];
    if (!option) return input.removeAttribute("aria-activedescendant");
    option.classList.add("active");
    option.scrollIntoView({ block: "nearest" });
    input.setAttribute("aria-activedescendant", option.id);
  }

  function show(zone) {
    chosen = zone;
    input.value = zone ? nameOf(zone) : "";
  }

  function choose(zone) {
    const same = zone === chosen;
    show(zone);
    close();
    if (!same) onChoose(zone);
  }

  input.addEventListener("focus", () => input.select());
  input.addEventListener("click", () => list.hidden && open(""));
  input.addEventListener("input", () => open(input.value));
  input.addEventListener("blur", () => (input.value.trim() ? choose(chosen) : choose(null)));
  input.addEventListener("keydown", (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      if (list.hidden) return open("");
      const step = event.key === "ArrowDown" ? 1 : -1;
      activate((Math.max(active, step < 0 ? 0 : -1) + step + found.length) % (found.length || 1));
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (!list.hidden && found[active]) choose(found[active]);
    } else if (event.key === "Tab" && typed && found[active]) {
      choose(found[active]);
    } else if (event.key === "Escape" && !list.hidden) {
      event.preventDefault();
      show(chosen);
      close();
    }
  });
  list.addEventListener("pointerdown", (event) => event.preventDefault()); // the field keeps focus
  list.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]");
    if (option) choose(found[[...list.children].indexOf(option)]);
  });
  return { show };
}
