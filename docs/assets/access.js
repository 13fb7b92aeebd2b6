// What the theme leaves out for screen readers and keyboards.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const link of document.querySelectorAll(".md-nav__container > a")) {
    const nav = link.parentElement.nextElementSibling; // labelled by an icon
    nav?.removeAttribute("aria-labelledby");
    nav?.setAttribute("aria-label", link.textContent.trim());
  }
  const scrolling = "pre > code, p:has(> img[src*='figures/'])";
  for (const each of document.querySelectorAll(scrolling)) each.tabIndex = 0;
});
