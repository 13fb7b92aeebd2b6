// What the theme leaves out for screen readers and keyboards.
document$.subscribe(() => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const code of document.querySelectorAll("pre > code")) code.tabIndex = 0;
});
