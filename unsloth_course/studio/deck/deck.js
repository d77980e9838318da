// A page that is higher than the screen is made smaller, never cut.
function fit(slide) {
  if (!slide || slide.dataset.fit) return;
  const style = getComputedStyle(slide);
  const room = { high: 1080 - parseFloat(style.paddingTop) - parseFloat(style.paddingBottom), wide: 1740 };
  const inner = slide.querySelector(":scope > .page");
  inner.style.zoom = 1;
  let scale = Math.min(1, room.high / inner.scrollHeight, room.wide / inner.scrollWidth);
  for (; scale < 1 && scale > 0.3; scale -= 0.02) {
    inner.style.zoom = scale;
    if (inner.scrollHeight * scale <= room.high && inner.scrollWidth * scale <= room.wide) break;
  }
  slide.dataset.fit = scale.toFixed(2);
}

for (const slide of document.querySelectorAll(".slides > section")) {
  const inner = document.createElement("div");
  inner.className = "page";
  inner.append(...[...slide.childNodes].filter((node) => !(node.matches && node.matches("aside.notes"))));
  const strip = inner.querySelector(".strip");
  slide.prepend(inner);
  if (strip) slide.prepend(strip);
}

Reveal.initialize({
  width: 1920, height: 1080, margin: 0, minScale: 0.1, maxScale: 4, center: false, hash: true, controls: false,
  slideNumber: "c/t", transition: "none", plugins: [RevealNotes],
}).then(() => fit(Reveal.getCurrentSlide()));
Reveal.on("slidechanged", (event) => fit(event.currentSlide));
