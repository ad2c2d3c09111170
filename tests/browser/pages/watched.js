// The first script of a page: collects console output, and waits for changes of the document.

window.problems = [];

for (const level of ["error", "warn"]) {
  const report = console[level];
  console[level] = (...parts) => {
    problems.push(`${level}: ${parts.join(" ")}`);
    report.apply(console, parts);
  };
}
addEventListener("error", ({ message, target }) => {
  problems.push(`uncaught: ${message ?? `${target.outerHTML} cannot be loaded`}`);
}, true);
addEventListener("unhandledrejection", ({ reason }) => problems.push(`uncaught: ${reason}`));

/** Returns a function's first true value; calls it again whenever the document changes. */
window.until = (look) =>
  new Promise((resolve) => {
    const check = () => {
      const found = look();
      if (found) resolve(found);
      if (found) observer.disconnect();
    };
    const observer = new MutationObserver(check);
    const everything = { attributes: true, characterData: true, childList: true, subtree: true };
    observer.observe(document, everything);
    check();
  });
