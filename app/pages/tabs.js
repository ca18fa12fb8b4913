// A row of tabs for the keyboard too: arrows choose, and one of them is in the tab order.
// Source: W3C, ARIA Authoring Practices Guide, tabs pattern.

/**
 * Make the buttons of an element with role `tablist` choose.
 * @param onChoice called with the `data-choice` of the tab that is chosen, and its id.
 * @returns `choose(name)`, and `allow(isAllowed)`, which disables tabs by their names.
 */
export function tabs(list, onChoice) {
  const all = [...list.querySelectorAll('[role="tab"]')];
  const choose = (chosen) => {
    for (const tab of all) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
    }
    onChoice(chosen.dataset.choice, chosen.id);
  };
  list.addEventListener("click", (event) => {
    const tab = event.target.closest('[role="tab"]');
    if (tab) choose(tab);
  });
  list.addEventListener("keydown", (event) => {
    const enabled = all.filter((tab) => !tab.disabled);
    const now = enabled.indexOf(document.activeElement);
    const to = { ArrowRight: now + 1, ArrowLeft: now - 1, Home: 0, End: enabled.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const tab = enabled.at(to % enabled.length);
    tab.focus();
    choose(tab);
  });
  return {
    choose: (name) => choose(all.find((tab) => tab.dataset.choice === name)),
    allow: (isAllowed) => {
      for (const tab of all) tab.disabled = !isAllowed(tab.dataset.choice);
      if (list.querySelector('[aria-selected="true"]').disabled) choose(all.find((tab) => !tab.disabled));
    },
  };
}
