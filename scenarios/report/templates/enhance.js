// A link to a hop opens it. Nothing depends on this.
(() => {
  const open = () => {
    let at = location.hash.startsWith("#hop-") && document.getElementById(location.hash.slice(1));
    const hop = at;
    for (; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
    if (hop) hop.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", open);
  open();
})();
