//! What is asked of the page inside the browser, as expressions of JavaScript.

/// Each text whose contrast with its ground is below 4.5:1, with the ratio: WCAG 2, success criterion 1.4.3.
pub(super) const FAINT_TEXTS: &str = r#"(() => {
  const parts = (color) => {
    const found = color.match(/rgba?\(([^)]+)\)/);
    if (!found) throw new Error(`unreadable colour ${color}`);
    const [r, g, b, a = 1] = found[1].split(/[ ,/]+/).map(Number);
    return { rgb: [r, g, b], a };
  };
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const { rgb, a } = parts(getComputedStyle(at).backgroundColor);
      if (a === 1) return rgb;
      if (a !== 0) throw new Error("a ground that shines through is not judged");
    }
    return matchMedia("(prefers-color-scheme: dark)").matches ? [0, 0, 0] : [255, 255, 255];
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ratio = (a, b) => {
    const [dark, bright] = [light(a), light(b)].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05);
  };
  document.querySelectorAll("details").forEach((details) => (details.open = true));
  const faint = [];
  let judged = 0;
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3).map((node) => node.data).join("").trim();
    if (!text || !element.checkVisibility?.() || ["SCRIPT", "TITLE", "OPTION"].includes(element.tagName.toUpperCase())) continue;
    const style = getComputedStyle(element);
    const colour = element instanceof SVGElement ? style.fill : style.color;
    const found = ratio(parts(colour).rgb, ground(element));
    judged += 1;
    if (found < 4.5) faint.push(`${element.tagName} "${text}": ${found.toFixed(2)}`);
  }
  return judged < 20 ? [`only ${judged} texts were judged`] : faint;
})()"#;

/// Each line of the plot whose contrast with the page is below 3:1: success criterion 1.4.11.
pub(super) const FAINT_LINES: &str = r#"(() => {
  const numbers = (color) => color.match(/[\d.]+/g).slice(0, 3).map(Number);
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const page = light(numbers(getComputedStyle(document.body).backgroundColor));
  const lines = [...document.querySelectorAll(".plot .line")];
  if (lines.length === 0) return ["no line was found"];
  return lines.map((line) => getComputedStyle(line).stroke).filter((stroke) => {
    const [dark, bright] = [light(numbers(stroke)), page].sort((x, y) => x - y);
    return (bright + 0.05) / (dark + 0.05) < 3;
  });
})()"#;

/// The ids of everything that can be operated.
pub(super) const OPERABLE: &str = r#"[...document.querySelectorAll("a[href], button, select, input:not([type=hidden]), summary")]
  .map((element) => element.id || `an element without id: ${element.outerHTML}`)"#;

/// The id of the element that has the focus, and whether that is seen.
pub(super) const FOCUSED: &str = r#"(() => {
  const element = document.activeElement;
  const style = getComputedStyle(element);
  return [element.id, style.outlineStyle !== "none" && 2 <= parseFloat(style.outlineWidth)];
})()"#;

/// Faults of the page's structure.
pub(super) const STRUCTURE_FAULTS: &str = r#"(() => {
  const faults = [];
  const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
  ids.filter((id, index) => ids.indexOf(id) !== index).forEach((id) => faults.push(`the id ${id} is there twice`));
  for (const control of document.querySelectorAll("select, input:not([type=hidden])")) {
    if (control.labels.length !== 1) faults.push(`${control.id} has no label`);
  }
  document.querySelectorAll("th:not([scope])").forEach((th) => faults.push(`th ${th.textContent} has no scope`));
  document.querySelectorAll("table").forEach((t) => t.caption || faults.push("a table has no caption"));
  for (const attribute of ["aria-labelledby", "for"]) {
    for (const element of document.querySelectorAll(`[${attribute}]`)) {
      if (!document.getElementById(element.getAttribute(attribute))) faults.push(`nothing has the id of ${element.outerHTML}`);
    }
  }
  const levels = [...document.querySelectorAll("h1, h2, h3")].map((heading) => Number(heading.tagName[1]));
  levels.reduce((before, level) => (before + 1 < level && faults.push(`h${level} follows h${before}`), level), 0);
  if (document.documentElement.lang !== "en") faults.push("the language is not named");
  if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
  if (!document.querySelector("main [aria-live=polite] .headline")) faults.push("changes of the state are not spoken");
  return faults;
})()"#;

/// The addresses of everything that the page has loaded from elsewhere.
pub(super) const FOREIGN_RESOURCES: &str = r#"performance.getEntriesByType("resource").map((entry) => entry.name)
  .filter((name) => !name.startsWith(location.origin + "/") && !name.startsWith("data:"))"#;
