// Choosing an option loads the page with that option, as a link would.
for (const radio of document.querySelectorAll("input[type=radio]")) {
  radio.addEventListener("click", () => { window.location.href = radio.dataset.url; });
}
// A product picture that cannot be loaded gives way to the drawn one.
for (const image of document.querySelectorAll("img[data-drawn]")) {
  image.addEventListener("error", () => { image.src = image.dataset.drawn; }, { once: true });
}
