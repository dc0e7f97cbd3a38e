// Pieces of a page that can be played with (lib/palimpsest/chapters/closely.py). Each is complete without this script. What searches
// and sorts records stands in lib/palimpsest/data/records.js, for audits have such a table too.
document.addEventListener("DOMContentLoaded", () => {
  const all = (root, what) => [...root.querySelectorAll(what)];
  all(document, "summary").forEach((fold) => fold.textContent.trim() || fold.setAttribute("aria-label", "pages below this one"));
  all(document, ".play").forEach((control) => (control.hidden = false));

  all(document, ".strips").forEach((box) => {
    const still = box.dataset.still.split(" ");
    const chosen = Object.fromEntries(all(box, "select").map((select) => [select.dataset.of, select]));
    const show = () =>
      all(box, ".strip").forEach((strip) => {
        const model = chosen.model.value;
        const right = model ? strip.dataset.model === model : still.includes(strip.dataset.model);
        strip.hidden = !(right && strip.dataset.record === chosen.record.value);
      });
    Object.values(chosen).forEach((select) => select.addEventListener("change", show));

    const told = document.createElement("output"); // what pointing at a token says, for fingers and for arrow keys
    const tell = (token) => {
      all(box, ".told-of").forEach((other) => other.classList.remove("told-of"));
      token.classList.add("told-of");
      token.parentElement.after(told);
      told.textContent = `${token.textContent.trim()}: ${token.title}`;
    };
    all(box, ".heat").forEach((heat) => {
      heat.addEventListener("click", (event) => event.target.title && tell(event.target));
      heat.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], at = [...heat.children].findIndex((one) => one.matches(".told-of"));
        const next = step && heat.children[at < 0 ? 0 : at + step];
        if (next) tell(next), event.preventDefault();
      });
    });
  });

  all(document, ".prefix-bars").forEach((box) => {
    const steps = box.dataset.steps.split(","), slider = box.querySelector("input");
    slider.addEventListener("input", () => {
      box.querySelector(".given").textContent = steps[slider.value];
      slider.setAttribute("aria-valuetext", `${steps[slider.value]} tokens`);
      all(box, ".bar").forEach((bar) => {
        const share = bar.dataset.values.split(",")[slider.value];
        bar.querySelector("b").style.width = `${100 * share}%`;
        bar.querySelector("output").textContent = share === "" ? "too few" : `${Math.round(100 * share)}%`;
      });
    });
  });
});
