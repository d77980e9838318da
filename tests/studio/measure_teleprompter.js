// Goes through all cells and all their pages, and reports what is cut or sticks out of its half of the screen.
async function measured() {
  const found = [];
  for (const [number, block] of blocks.entries()) {
    const pages = document.querySelectorAll(`#screen article[data-cell="${block.dataset.cell}"]`).length || 1;
    for (let page = 0; page < pages; page += 1) {
      at = number;
      into = lasts(block) * (page + 0.5) / pages;
      show();
      const shown = document.querySelector("article.now"), half = screenOf.getBoundingClientRect();
      const faults = shown ? outside(shown, "*", [half.left, half.top, half.right, half.bottom]) : ["nothing is shown"];
      const left = view.getBoundingClientRect();
      faults.push(...outside(block, "*", [left.left, -Infinity, left.right, Infinity]));
      found.push({ of: block.dataset.cell, fit: shown ? Number(shown.dataset.fit) : 0, faults });
    }
  }
  const press = (key) => document.dispatchEvent(new KeyboardEvent("keydown", { key })), wrong = [];
  press("Home");
  press("ArrowRight");
  if (at !== 1) wrong.push(`the right arrow leads to cell ${at}`);
  const usual = sum(blocks), said = blocks.reduce((all, block) => all + Number(block.dataset.say), 0);
  while (pace > base / 2) press("ArrowDown");
  if (Math.abs(sum(blocks) - usual - said) > 1) wrong.push(`at half the pace it takes ${sum(blocks)} s, not ${usual + said}`);
  found.push({ of: "keys", fit: 1, faults: wrong, seconds: usual });
  const body = document.documentElement;
  found.push({ of: "window", fit: 1, faults: body.scrollWidth > innerWidth || body.scrollHeight > innerHeight ? ["it scrolls"] : [] });
  return found;
}
