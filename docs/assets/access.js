// What the theme leaves out for screen readers and keyboards.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const scrolling = "pre > code, p:has(> img[src*='figures/'])";
  for (const each of document.querySelectorAll(scrolling)) each.tabIndex = 0;
});
