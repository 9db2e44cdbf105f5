// Adds what Gradio's components lack: buttons in prepared HTML, light and dark themes, keyboard shortcuts, files.
// Nothing here creates markup from text, and nothing is sent anywhere except to the page's own components.
"use strict";
(() => {
  const LONGEST = 60000;
  let count = 0;
  let focus = null;

  const $ = (selector) => document.querySelector(selector);

  // put a value into a hidden Gradio text box and press Enter there, as a user would
  function send(wire, value) {
    const box = $(`#wire-${wire} textarea, #wire-${wire} input`);
    if (!box) return;
    const kind = box.tagName === "TEXTAREA" ? HTMLTextAreaElement : HTMLInputElement;
    Object.getOwnPropertyDescriptor(kind.prototype, "value").set.call(box, value);
    box.dispatchEvent(new Event("input", { bubbles: true }));
    box.dispatchEvent(new KeyboardEvent("keypress", { key: "Enter", bubbles: true, cancelable: true }));
  }

  function toggleTheme() {
    const dark = !document.body.classList.contains("dark");
    document.body.classList.toggle("dark", dark);
    try {
      localStorage.setItem("llmrec-theme", dark ? "dark" : "light");
    } catch {
      // without browser storage the choice holds for this page only
    }
  }

  function importFile() {
    const input = document.createElement("input");
    input.type = "file";
    input.accept = "application/json,.json";
    input.id = "import-file";
    input.hidden = true;
    input.addEventListener("change", async () => {
      const file = input.files[0];
      input.remove();
      if (file) send("act", `import:${file.size > LONGEST ? "" : await file.text()}`);
    });
    document.body.append(input);
    input.click();
  }

  function offerFile(pre) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([pre.textContent], { type: "application/json" }));
    link.download = "llmrec-conversation.json";
    pre.remove();
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.name === "act" || button.name === "ask") {
      focus = button.value;
      send(button.name, `${button.value}#${++count}`);
    } else if (button.name === "page" && button.value === "theme") {
      toggleTheme();
    } else if (button.id === "import") {
      importFile();
    }
  });

  document.addEventListener("keydown", (event) => {
    const typing = /^(INPUT|TEXTAREA|SELECT)$/.test(document.activeElement?.tagName ?? "");
    const box = $("#box textarea");
    if (event.key === "/" && !typing && box) {
      event.preventDefault();
      box.focus();
    } else if (event.key === "Escape") {
      $("#box .stop-button")?.click();
    }
  });

  // a redraw removes the focused button: focus the button with the same value, or else the list
  function refocus() {
    if (focus === null || document.activeElement !== document.body) return;
    const next = $(`button[value="${CSS.escape(focus)}"]`) ?? $("#cards button");
    focus = null;
    next?.focus({ preventScroll: true });
  }

  // accessible names for controls that Gradio draws as icons only
  const NAMES = { "#box textarea": "Message", "#box .submit-button": "Send", "#box .stop-button": "Stop" };
  function nameIcons() {
    for (const [selector, name] of Object.entries(NAMES)) {
      $(`${selector}:not([aria-label])`)?.setAttribute("aria-label", name);
    }
  }

  new MutationObserver(() => {
    nameIcons();
    const pre = $("#file .exported");
    if (pre) offerFile(pre);
    refocus();
  }).observe(document.documentElement, { childList: true, subtree: true });

  function chosenTheme() {
    let chosen = null;
    try {
      chosen = localStorage.getItem("llmrec-theme");
    } catch {
      return;
    }
    if (chosen) document.body.classList.toggle("dark", chosen === "dark");
  }
  chosenTheme();
  // Gradio applies the system theme later, when it mounts
  addEventListener("load", () => setTimeout(chosenTheme, 50));
})();
