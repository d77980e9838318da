// Shows every slide with all its parts, and reports what is cut, what sticks out of the screen, and how far it shrank.
async function measured() {
  while (!Reveal.isReady()) await new Promise((done) => setTimeout(done, 20));
  const slides = [...document.querySelectorAll(".slides > section")], found = [];
  for (const [number, slide] of slides.entries()) {
    Reveal.slide(number, 0, 99);
    await new Promise((done) => setTimeout(done, 20));
    found.push({ of: `slide ${number + 1}`, fit: Number(slide.dataset.fit), faults: outside(slide, ".page, .page *, .strip, .strip *", [0, 0, innerWidth, innerHeight]) });
  }
  return found;
}
