// Runs the Python code that its page sends.

import { boot } from "/boot.js";

const booted = boot();

onmessage = async ({ data: { id, code } }) => {
  try {
    const python = await booted;
    postMessage({ id, value: await python.runPythonAsync(code) });
  } catch (error) {
    postMessage({ id, error: String(error) });
  }
};
