// Icons, drawn in strokes on a field of 24 by 24.

const PATHS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h10",
  settings:
    "M4 8h8M18 8h2M4 16h2M12 16h8M15 5.5a2.5 2.5 0 1 1 0 5a2.5 2.5 0 0 1 0-5M9 13.5a2.5 2.5 0 1 1 0 5a2.5 2.5 0 0 1 0-5",
  send: "M12 19V5M6 11l6-6l6 6",
  stop: "M8 8h8v8H8z",
  copy: "M9 9h10v10H9zM5 15V5h10",
  check: "M5 13l4.5 4.5L19 7.5",
  edit: "M5 19l1-4L16 5l3 3L9 18zM14 7l3 3",
  again: "M19 12a7 7 0 1 1-2.2-5.1M17.5 3v4.5H13",
  trash: "M5 7h14M10 7V4.5h4V7M7 7l.8 12h8.4L17 7M10.5 11v5M13.5 11v5",
  down: "M7 10l5 5l5-5",
  arrow: "M12 5v14M6 13l6 6l6-6",
  expand: "M14 5h5v5M19 5l-7 7M10 6H6v12h12v-4",
  close: "M6 6l12 12M18 6L6 18",
  file: "M6 3.5h8l4 4v13H6zM14 3.5v4h4",
  chip: "M8 8h8v8H8zM10 4v4M14 4v4M10 16v4M14 16v4M4 10h4M4 14h4M16 10h4M16 14h4",
  alert: "M12 4L21 19H3zM12 10v4M12 16.5v.1",
};

const SVG = "http://www.w3.org/2000/svg";

export type IconName = keyof typeof PATHS;

/** An icon, hidden from screen readers: the text beside it says the same. */
export function icon(name: IconName): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** Icons of elements that are in the page's HTML: <span data-icon="plus">. */
export function placeIcons(root: ParentNode): void {
  for (const place of root.querySelectorAll<HTMLElement>("[data-icon]")) {
    place.replaceWith(icon(place.dataset.icon as IconName));
  }
}
