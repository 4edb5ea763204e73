// The cards of the sets: what the field asks of a generator, each number with its interval.

const lineOf = (card, name) => card.lines.find((line) => line.name === name);
const seconds = (value) => (value >= 7200 ? `${(value / 3600).toFixed(1)} h` : `${value < 10 ? value.toFixed(1) : Math.round(value)} s`);

// A rate over its interval, or why there is none.
function lineRate(line) {
  if (line.rate === null) return [element("small", {}, line.note ?? "none")];
  return [element("b", {}, percent(line.rate)), element("small", {}, `${(100 * line.low).toFixed(1)} to ${(100 * line.high).toFixed(1)}`)];
}

function costParts(cost, devices) {
  if (!cost || cost.each === null) return [element("small", {}, "none")];
  const ends = cost.high === null ? `${seconds(cost.low)} or more` : `${seconds(cost.low)} to ${seconds(cost.high)}`;
  return [element("b", {}, seconds(cost.each)), element("small", {}, `${ends}, ${devices.join(", ")}`)];
}

const BOARD_LINES = ["dsun", "dsun_by_rule", "sun", "near_hull", "novel", "by_verdict", "by_rule", "by_dft"];

function showCardBoard(cards) {
  const titles = BOARD_LINES.map((name) => lineOf(cards[0], name).title);
  const head = ["", "Set", ...titles, "a D-S.U.N. crystal costs"].map((text) => element("th", { scope: "col" }, text));
  const rows = cards.map((card, place) => {
    const cells = BOARD_LINES.map((name) => element("td", { class: "figure" }, ...lineRate(lineOf(card, name))));
    const about = [card.model !== card.set && card.model, card.pending > 0 && `interim: ${count(card.pending)} not finished`].filter(Boolean);
    const set = element("td", {}, card.set, ...about.map((text) => element("span", { class: "about" }, text)));
    const cost = element("td", { class: "figure" }, ...costParts(card.costs[1], card.devices));
    return element("tr", {}, element("td", { class: "rank" }, String(place + 1)), set, ...cells, cost);
  });
  byId("card-board").replaceChildren(element("thead", {}, element("tr", {}, ...head)), element("tbody", {}, ...rows));
}

function cardLine(line) {
  const bar = element("div", { class: "interval", "aria-hidden": "true" }, element("i"), element("b"));
  if (line.rate !== null) {
    bar.firstChild.style.left = ofWidth(line.low);
    bar.firstChild.style.width = ofWidth(line.high - line.low);
    bar.lastChild.style.left = ofWidth(line.rate);
  }
  const number = line.count === null ? null : element("small", {}, `${count(line.count)} of ${count(line.total)}`);
  return element("tr", { class: line.name.includes("sun") ? "strong" : "" },
    element("th", { scope: "row" }, line.title, element("span", { class: "about" }, line.of)),
    element("td", { class: "range" }, line.rate === null ? "" : bar),
    element("td", { class: "figure" }, number), element("td", { class: "figure" }, ...lineRate(line)));
}

const facts = (pairs) => element("dl", {}, ...pairs.flatMap(([name, ...parts]) => [element("dt", {}, name), element("dd", {}, ...parts)]));

function oneCard(card) {
  const state = `${count(card.crystals)} finished, ${count(card.pending)} not yet`;
  const over = `${count(card.no_hull)} relaxed crystals have none, ${count(card.bare_hull)} one of the elements alone`;
  const costs = card.costs.map((cost) => [`cost of ${cost.title}`, ...costParts(cost, card.devices)]);
  return element("article", { "data-card": card.set }, element("h3", {}, card.set),
    element("table", {}, element("tbody", {}, ...card.lines.map(cardLine))),
    facts([...costs, ["crystals", state], ["hull", over], ["reference", card.reference ?? "none"]]));
}

// How all of them were counted: they share the potential, the protocol and the tolerances.
function countedBy(card) {
  const { judge, softening, tolerances } = card;
  const text = (value) => (typeof value === "number" ? minus(String(value)) : value);
  return facts([
    ["judged by", `${judge.protocol_name} (${judge.protocol_id}), ${judge.potential}`],
    [`softness of ${judge.potential}`, softening.said],
    ...Object.entries(tolerances).map(([name, value]) => [name.replaceAll("_", " "), text(value)]),
  ]);
}

function showCards(cards) {
  byId("cards").hidden = cards.length === 0;
  if (cards.length === 0) return;
  showCardBoard(cards);
  byId("card-list").replaceChildren(...cards.map(oneCard));
  byId("card-counted").replaceChildren(countedBy(cards[0]));
}
