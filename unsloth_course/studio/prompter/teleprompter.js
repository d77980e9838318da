// Time runs block by block. A block's words take longer at a slower pace; its pauses and running cells do not change.
const blocks = [...document.querySelectorAll("#roll section")];
const base = Number(document.body.dataset.pace);
const roll = document.getElementById("roll");
const view = document.getElementById("window");
const screenOf = document.getElementById("screen");
let pace = base, at = 0, into = 0, playing = false, last = 0, letters = 44;

const lasts = (block) => Number(block.dataset.say) * base / pace + Number(block.dataset.rest);
const stamp = (s) => [Math.floor(s / 60), Math.floor(s % 60)].map((n) => String(n).padStart(2, "0")).join(":");
const sum = (list) => list.reduce((all, block) => all + lasts(block), 0);

function fit(page) {
  const wide = screenOf.clientWidth - 48, high = screenOf.clientHeight - 48;
  page.style.transform = "none";
  const scale = Math.min(1, wide / page.scrollWidth, high / page.scrollHeight);
  page.style.transform = `scale(${scale})`;
  page.dataset.fit = scale.toFixed(2);
}

function show() {
  const block = blocks[at], share = lasts(block) ? into / lasts(block) : 0;
  const pages = [...screenOf.querySelectorAll(`article[data-cell="${block.dataset.cell}"]`)];
  const page = pages[Math.min(pages.length - 1, Math.floor(share * pages.length))];
  for (const other of screenOf.querySelectorAll("article.now")) if (other !== page) other.classList.remove("now");
  if (page && !page.classList.contains("now")) { page.classList.add("now"); fit(page); }
  roll.style.transform = `translateY(${view.clientHeight * 0.36 - block.offsetTop - share * block.offsetHeight}px)`;
  const now = sum(blocks.slice(0, at)) + into;
  document.getElementById("clock").textContent = `${stamp(now)} / ${stamp(sum(blocks))}`;
  document.getElementById("pace").textContent = `${pace} words/min`;
  document.getElementById("where").textContent = block.dataset.where;
}

function tick(time) {
  if (playing) {
    into += (time - last) / 1000;
    while (into >= lasts(blocks[at]) && at < blocks.length - 1) { into -= lasts(blocks[at]); at += 1; }
    if (into >= lasts(blocks[at])) { into = lasts(blocks[at]); playing = false; }
    show();
  }
  last = time;
  requestAnimationFrame(tick);
}

function go(to) { at = Math.max(0, Math.min(blocks.length - 1, to)); into = 0; show(); }
function speed(by) {
  const share = lasts(blocks[at]) ? into / lasts(blocks[at]) : 0;
  pace = Math.max(60, Math.min(260, pace + by));
  into = share * lasts(blocks[at]);
  show();
}
function size(by) {
  letters = Math.max(24, Math.min(80, letters + by));
  roll.style.setProperty("--letters", `${letters}px`);
  show();
}

const keys = {
  " ": () => { playing = !playing; }, ArrowUp: () => speed(5), ArrowDown: () => speed(-5),
  ArrowRight: () => go(at + 1), ArrowLeft: () => go(into > 1 ? at : at - 1), Home: () => go(0),
  "+": () => size(4), "-": () => size(-4), m: () => document.body.classList.toggle("mirrored"),
  f: () => document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen(),
};
document.addEventListener("keydown", (event) => {
  if (!keys[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  keys[event.key]();
});
window.addEventListener("resize", () => { screenOf.querySelectorAll("article.now").forEach(fit); show(); });
show();
requestAnimationFrame((time) => { last = time; tick(time); });
